-- The host's rate and what time it is for the database.
SELECT rate, extract(epoch FROM clock_timestamp())::double precision FROM host_clocks WHERE host = %(host)s
