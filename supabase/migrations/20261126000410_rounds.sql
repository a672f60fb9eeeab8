-- Many readers in one statement, each as itself: a thousand live streams that are woken at the same moment would otherwise
-- ask a thousand times, and each statement costs ten times what it finds.
--
-- What policies ask runs in each of them, so its plan is kept too: a function in SQL is planned anew each time it is asked.

create or replace function access.tenants() returns setof uuid
language plpgsql stable security definer set search_path = '' as $$
begin
  return query select m.tenant_id from public.members m where m.user_id = (select auth.uid());
end $$;

-- `asked`: [{"nr", "claims", "job_id", "tenant_id", "after", "most"}]. Each is answered under its own claims, as `authenticated`, so
-- row-level security decides as it does for one; the plan is made once for all. Role and claims end with the transaction.
-- Only the service may call this: whoever may, can ask as anybody.
create function ledger.read_round(asked jsonb)
returns table (
  nr integer, job_status text, last_seq integer, silent_s double precision, seq integer, at timestamptz, kind text,
  stage text, step text, item integer, attempt integer, actor uuid, message text, data jsonb
) language plpgsql volatile as $$
#variable_conflict use_column
declare
  one record;
begin
  perform set_config('role', 'authenticated', true);
  for one in
    select a.* from jsonb_to_recordset(asked)
      a(nr integer, claims text, job_id uuid, tenant_id uuid, after integer, most integer)
  loop
    perform set_config('request.jwt.claims', one.claims, true);
    return query
      select one.nr, j.status, j.last_seq, extract(epoch from clock_timestamp() - j.updated_at)::double precision, e.seq,
             e.at, e.kind, e.stage, e.step, e.item, e.attempt, e.actor, e.message, e.data
      from public.jobs j
      left join lateral (
        select v.* from public.job_events v where v.job_id = j.id and v.seq > one.after
        order by v.seq limit one.most) e on true
      where j.id = one.job_id and j.tenant_id = one.tenant_id
      order by e.seq;
  end loop;
end $$;

revoke all on function ledger.read_round(jsonb) from anon, authenticated, public;
