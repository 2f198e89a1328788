SELECT rate, extract(epoch FROM greatest(hold_until, clock_timestamp()) - clock_timestamp())::double precision
FROM host_clocks WHERE host = %(host)s
