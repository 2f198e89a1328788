-- Set the host's rate (NULL: unlimited). A slower rate may have pushed the next turn far out; a faster one pulls it
-- back, but not before what workers may have in hand, so that nobody goes twice.
INSERT INTO host_clocks AS clock (host, rate) VALUES (%(host)s, %(rate)s)
ON CONFLICT (host) DO UPDATE SET rate = excluded.rate,
    next_turn = least(clock.next_turn, clock_timestamp() + %(in_hand_s)s * interval '1 second')
WHERE clock.rate IS DISTINCT FROM excluded.rate
