-- The host's rate, seconds it is still held, and now, of the database's clock.
SELECT rate, extract(epoch FROM greatest(hold_until, now.at) - now.at)::double precision,
       extract(epoch FROM now.at)::double precision
FROM host_clocks, (SELECT clock_timestamp() AS at) AS now WHERE host = %(host)s
