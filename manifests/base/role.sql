-- Run once, by the superuser, when a new volume is prepared (psql 15 or newer reads the environment).
-- The platform is no superuser, exactly as on a managed Postgres: a hole in it must not become a shell in here.
\getenv password ROLE_PASSWORD
create role syncsets login password :'password';
create database syncsets owner syncsets;
