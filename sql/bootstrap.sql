-- What Supabase has and our migrations need, for a plain Postgres. Never run on Supabase itself.
--
-- Safe to run again and by several at once, on several databases of one server: roles belong to the whole server.
-- Needs a superuser, or a user with CREATEROLE who may create schemas in this database.

do $$
declare
    wanted text;
    needs_set text := case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end;
begin
    foreach wanted in array array['anon', 'authenticated', 'service_role', 'authenticator'] loop
        if to_regrole(wanted) is null then
            begin
                execute format('create role %I nologin noinherit', wanted);
            exception
                -- Another database's bootstrap created it between our look and our create.
                when duplicate_object or unique_violation then null;
                when insufficient_privilege then
                    raise insufficient_privilege using message = format(
                        'The role %s is missing and %s may not create it. Have a superuser run sql/bootstrap.sql once.',
                        wanted, current_user);
            end;
        end if;
        -- `set local role` needs membership. A superuser has it of everything.
        if not pg_has_role(current_user, wanted, needs_set) then
            begin
                execute format('grant %I to current_user', wanted);
            exception
                when unique_violation then null;
                when insufficient_privilege then
                    raise insufficient_privilege using message = format(
                        '%s may not act as the role %s. Have a superuser run: grant %s to %s',
                        current_user, wanted, wanted, current_user);
            end;
        end if;
    end loop;

    -- PostgREST logs in as authenticator and becomes the others.
    foreach wanted in array array['anon', 'authenticated', 'service_role'] loop
        if not pg_has_role('authenticator', wanted, 'MEMBER') then
            begin
                execute format('grant %I to authenticator', wanted);
            -- Nothing of ours depends on it.
            exception when unique_violation or insufficient_privilege then null;
            end;
        end if;
    end loop;

    -- Only a superuser (or, from 16 on, one who has it) may hand this out; nothing of ours depends on it.
    if not (select rolbypassrls from pg_roles where rolname = 'service_role') then
        begin
            alter role service_role bypassrls;
        exception when insufficient_privilege or internal_error then null;
        end;
    end if;
end
$$;

create schema if not exists auth;
create schema if not exists extensions;
comment on schema auth is 'ledgerline bootstrap: what Supabase has and a plain Postgres lacks';

grant usage on schema auth, extensions, public to anon, authenticated, service_role;

-- The columns of Supabase's auth.users that anything here may read.
create table if not exists auth.users (
    id uuid primary key,
    email text,
    phone text,
    raw_app_meta_data jsonb,
    raw_user_meta_data jsonb,
    is_anonymous boolean not null default false,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    deleted_at timestamptz
);
revoke all on auth.users from public, anon, authenticated;

-- The claims of the request, which the API sets for one transaction. Null when nobody has signed in.
create or replace function auth.jwt() returns jsonb
    language sql stable
    return nullif(current_setting('request.jwt.claims', true), '')::jsonb;

create or replace function auth.uid() returns uuid
    language sql stable
    return nullif(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub', '')::uuid;

create or replace function auth.role() returns text
    language sql stable
    return nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role';

create or replace function auth.email() returns text
    language sql stable
    return nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email';

grant execute on function auth.jwt(), auth.uid(), auth.role(), auth.email() to anon, authenticated, service_role;
