-- Who may see what. Policies ask one function, which reads the caller's claims once per statement.

create function access.tenants() returns setof uuid
language sql stable security definer set search_path = ''
as $$
  select m.tenant_id from public.members m where m.user_id = (select auth.uid())
$$;

revoke all on function access.tenants() from public;
grant usage on schema access to authenticated;
grant execute on function access.tenants() to authenticated;

-- New projects may grant to anon and authenticated by default: start from nothing, then say what is given.
revoke all on all tables in schema public, ledger, ops from anon, authenticated, public;
revoke all on all functions in schema ledger, ops from anon, authenticated, public;
alter default privileges in schema ledger revoke execute on functions from public;
alter default privileges in schema ops revoke execute on functions from public;

alter table public.tenants enable row level security;
alter table public.members enable row level security;
alter table public.documents enable row level security;
alter table public.pipelines enable row level security;
alter table public.pipeline_graphs enable row level security;
alter table public.pipeline_steps enable row level security;
alter table public.jobs enable row level security;
alter table public.job_steps enable row level security;
alter table public.job_step_totals enable row level security;
alter table public.job_events enable row level security;
alter table public.step_results enable row level security;
alter table public.artifacts enable row level security;
alter table public.reviews enable row level security;

create policy "members see their tenants" on public.tenants
  for select to authenticated using (id in (select access.tenants()));
create policy "members see their tenant's members" on public.members
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's documents" on public.documents
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's jobs" on public.jobs
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's step runs" on public.job_steps
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's totals" on public.job_step_totals
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's events" on public.job_events
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's results" on public.step_results
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's artifacts" on public.artifacts
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "members see their tenant's reviews" on public.reviews
  for select to authenticated using (tenant_id in (select access.tenants()));
create policy "pipelines are no secret to users" on public.pipelines
  for select to authenticated using (true);
create policy "graphs are no secret to users" on public.pipeline_graphs
  for select to authenticated using (true);
create policy "steps are no secret to users" on public.pipeline_steps
  for select to authenticated using (true);

grant usage on schema public to authenticated;
grant select on
  public.tenants, public.members, public.documents, public.pipelines, public.pipeline_graphs,
  public.pipeline_steps, public.jobs, public.job_steps, public.job_step_totals, public.job_events,
  public.step_results, public.artifacts, public.reviews
to authenticated;
