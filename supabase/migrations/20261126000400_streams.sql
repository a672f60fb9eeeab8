-- Streams over many jobs, and the tickets that open a stream where no header can be sent.

-- Where an event stands among all events, of all jobs. A reader that has told everything below a position must never
-- find another event there later. Transactions begin in one order and commit in another, so no counter can promise that;
-- the snapshots of Postgres can: when no transaction older than a position is running any more, all that will ever be
-- below it has been committed. Hence at least the number of the transaction that writes. And at least the latest number
-- that is over, because a transaction may have its number long before it gets the job's row: under that lock, those that
-- held it before are over, so the events of one job stand in the order of their seq.
--
-- It is the column's default, evaluated by each insert: no transition has to know of it. (Rows from before this column
-- share the position of this migration; the table is not rewritten.)
create function ledger.event_position() returns bigint language sql stable as $$
  select greatest(pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)
$$;

alter table public.job_events add column position bigint not null default ledger.event_position();
create index job_events_by_position on public.job_events (tenant_id, position, job_id, seq);

-- A database that was restored into another server counts its transactions anew: what was written before has to stand
-- below what will be. Returns how many events were moved; asks one row of each tenant when there is nothing to do.
create function ledger.mend_positions() returns integer language plpgsql as $$
declare
  moved integer;
begin
  -- One statement, so one snapshot: what it sees and what it takes for the newest belong together.
  with newest as materialized (
    select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as number
  ), ahead as materialized (
    select t.id as tenant_id from public.tenants t, newest n
    where exists (select from public.job_events v where v.tenant_id = t.id and v.position >= n.number)
  )
  update public.job_events e set position = 0
  from ahead a, newest n where e.tenant_id = a.tenant_id and e.position >= n.number;
  get diagnostics moved = row_count;
  return moved;
end $$;

-- Tickets: good once, for a minute, for one stream of one member. Only their digests are kept.
create table ops.stream_tickets (
  digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
  user_id uuid not null,
  tenant_id uuid not null references public.tenants on delete cascade,
  claims jsonb not null,                    -- what row-level security may ask for, as the access token had it
  session_ends_at timestamptz not null,     -- when that token expires, and with it the stream; a key need not
  expires_at timestamptz not null
);
create index stream_tickets_by_expiry on ops.stream_tickets (expires_at);
create index stream_tickets_by_tenant on ops.stream_tickets (tenant_id);

-- Keep a ticket's digest, and forget some that nobody used. Returns the seconds for which it is good: not beyond the token.
create function ledger.make_ticket(
  of_digest text, for_user uuid, for_tenant uuid, with_claims jsonb, until timestamptz, ttl_s double precision
) returns double precision language plpgsql as $$
declare
  made_at timestamptz := ledger.now();
  good_until timestamptz := least(made_at + make_interval(secs => ttl_s), until);
begin
  delete from ops.stream_tickets t where t.digest in (
    select o.digest from ops.stream_tickets o where o.expires_at < ledger.now()
    order by o.expires_at limit 10 for update skip locked);
  insert into ops.stream_tickets (digest, user_id, tenant_id, claims, session_ends_at, expires_at)
  values (of_digest, for_user, for_tenant, with_claims, until, good_until);
  return extract(epoch from good_until - made_at);
end $$;

-- Take a ticket: of those who try it at the same time, one gets it. No row when it was used, has expired or never was.
create function ledger.take_ticket(of_digest text) returns setof ops.stream_tickets language plpgsql as $$
declare
  ticket ops.stream_tickets;
begin
  delete from ops.stream_tickets t where t.digest = of_digest returning * into ticket;
  if ticket.expires_at > ledger.now() then
    return next ticket;
  end if;
end $$;

revoke all on all tables in schema ops from anon, authenticated, public;
revoke all on all functions in schema ledger from anon, authenticated, public;
