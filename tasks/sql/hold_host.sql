INSERT INTO host_clocks AS clock (host, hold_until)
VALUES (%(host)s, clock_timestamp() + %(seconds)s * interval '1 second')
ON CONFLICT (host) DO UPDATE SET hold_until = greatest(clock.hold_until, excluded.hold_until)
