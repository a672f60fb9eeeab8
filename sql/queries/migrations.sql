-- Statements of tasks/migrations.py. The history table is the one the Supabase CLI keeps, so either can go on from the other.

-- name: lock_migrations
-- Holds until the transaction ends, so it works through a transaction pool too.
select pg_advisory_xact_lock(hashtextextended('ledgerline migrations', 0));

-- name: lift_migration_timeouts
-- A pool or role may set limits meant for requests; a migration takes as long as it takes.
select set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true);

-- name: needs_bootstrap
-- A plain Postgres has no auth.uid(); one that we equipped says so, and gets what later versions added.
select to_regprocedure('auth.uid()') is null
    or coalesce(obj_description(to_regnamespace('auth'), 'pg_namespace') like 'ledgerline bootstrap%', false) as needed;

-- name: create_migration_history
-- Same shape as the Supabase CLI makes; columns are added where an old CLI made it without.
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
alter table supabase_migrations.schema_migrations add column if not exists statements text[];
alter table supabase_migrations.schema_migrations add column if not exists name text;

-- name: migration_history_exists
-- Readiness asks this before the first migration ran.
select to_regclass('supabase_migrations.schema_migrations') is not null as present;

-- name: list_applied_versions
-- For readiness, which must not need the columns that migrating adds to an old CLI's table.
select version from supabase_migrations.schema_migrations;

-- name: list_applied_migrations
-- Everything the database knows, ours or not.
select version, name from supabase_migrations.schema_migrations order by version;

-- name: record_migration
-- In the transaction of the migration itself.
insert into supabase_migrations.schema_migrations (version, name, statements)
values (%(version)s, %(name)s, array[%(text)s]);
