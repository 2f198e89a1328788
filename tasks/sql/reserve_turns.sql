-- Reserve the host's next turns: as many as wanted, but no more than %(span_s)s seconds of them and none while others
-- have reserved further ahead than %(horizon_s)s. A turn that has just passed (by %(slack)s of what requests may be
-- late) may still be had. Times are seconds of the database's clock.
--   rate; number reserved (NULL: none), moment of the first, seconds from one to the next;
--   seconds until the next free turn; seconds the host is still held; now
-- A crash may forget the last half second of turns, which is cheaper than a disk write for each reservation.
SET LOCAL synchronous_commit = off;
WITH reserved AS (
    UPDATE host_clocks
    SET next_turn = greatest(next_turn, hold_until,
                        clock_timestamp() - %(slack)s * (1 / (rate * %(pace)s) + 1 - %(pace)s) * interval '1 second')
                  + least(%(wanted)s, greatest(1, floor(rate * %(span_s)s))) / (rate * %(pace)s) * interval '1 second'
    WHERE host = %(host)s AND rate IS NOT NULL
      AND greatest(next_turn, hold_until) < clock_timestamp() + %(horizon_s)s * interval '1 second'
    RETURNING next_turn, least(%(wanted)s, greatest(1, floor(rate * %(span_s)s))) AS number,
              1 / (rate * %(pace)s) AS spacing_s
)
SELECT clock.rate, reserved.number::int,
       extract(epoch FROM reserved.next_turn)::double precision - reserved.number * reserved.spacing_s,
       reserved.spacing_s,
       extract(epoch FROM greatest(clock.next_turn, clock.hold_until, now.at) - now.at)::double precision,
       extract(epoch FROM greatest(clock.hold_until, now.at) - now.at)::double precision,
       extract(epoch FROM now.at)::double precision
FROM host_clocks AS clock
LEFT JOIN reserved ON true
CROSS JOIN LATERAL (SELECT clock_timestamp() AS at WHERE reserved.number IS NULL OR reserved.number > 0) AS now
WHERE clock.host = %(host)s
