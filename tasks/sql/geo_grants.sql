-- Rights on a table, as statements that give them to another too; the owner has them anyway.
SELECT format('GRANT %%s ON %%s TO %%s%%s', a.privilege_type, %s, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a
WHERE c.oid = %s AND a.grantee <> c.relowner
