-- The ledger's tables.
--
-- public   what users see, row by row, under row-level security
-- access   the functions the policies ask; not exposed
-- ledger   the functions that move jobs; not exposed
-- ops      what operators see; not exposed
--
-- Nobody but the service writes: `authenticated` gets select and nothing else.

create schema access;
create schema ledger;
create schema ops;
revoke all on schema access, ledger, ops from public;

-- The time, by the database's clock. `ledger.clock_offset` lets tests move it without waiting.
create function ledger.now() returns timestamptz
language sql volatile
as $$
  select clock_timestamp()
       + coalesce(nullif(current_setting('ledger.clock_offset', true), ''), '0')::interval
$$;

-- A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits. Sorts by birth.
create function ledger.uuid7() returns uuid
language sql volatile
as $$
  select encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
              placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
              from 1 for 6),
      52, 1), 53, 1),
    'hex')::uuid
$$;

-- Tenants and people ----------------------------------------------------------------------------

create table public.tenants (
  id uuid primary key default ledger.uuid7(),
  name text not null check (length(name) between 1 and 200),
  created_at timestamptz not null default ledger.now()
);

create table public.members (
  tenant_id uuid not null references public.tenants on delete cascade,
  user_id uuid not null,
  role text not null check (role in ('owner', 'editor', 'reviewer', 'viewer')),
  created_at timestamptz not null default ledger.now(),
  primary key (tenant_id, user_id)
);
create index members_by_user on public.members (user_id, tenant_id);

-- Documents -------------------------------------------------------------------------------------

create table public.documents (
  id uuid primary key,
  tenant_id uuid not null references public.tenants on delete cascade,
  uploaded_by uuid,
  title text not null check (length(title) between 1 and 500),
  filename text not null check (length(filename) between 1 and 500),
  kind text not null check (kind ~ '^[a-z0-9]{1,16}$'),
  media_type text not null,
  bytes bigint not null check (bytes > 0),
  sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  status text not null default 'uploaded' check (status in ('uploaded')),
  created_at timestamptz not null default ledger.now()
);
create index documents_by_tenant on public.documents (tenant_id, id desc);
create index documents_by_content on public.documents (tenant_id, sha256);

-- Pipelines, as published by a release. Graphs are kept: a job runs the graph it was submitted with. --

create table public.pipeline_graphs (
  digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
  name text not null check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  version integer not null check (version > 0),
  title text not null,
  accepts text[] not null,
  params_schema jsonb not null,
  total_weight double precision not null check (total_weight > 0),
  deploy text not null,
  published_at timestamptz not null default ledger.now()
);

create table public.pipelines (
  name text primary key,
  graph text not null references public.pipeline_graphs,
  retired_at timestamptz
);

create table public.pipeline_steps (
  graph text not null references public.pipeline_graphs on delete cascade,
  name text not null check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  position integer not null,
  stage text not null,
  queue text not null check (queue in ('cpu', 'llm', 'media', 'maintenance')),
  version integer not null,
  after text[] not null,
  map text,
  inputs text[] not null,
  takes text[] not null,
  along text[] not null,                -- steps mapped over the same list: item by item, not as a whole
  gate boolean not null,                -- waits for a person; has no function
  expires_s double precision,           -- how long a gate waits; null: for ever
  allow_failures integer not null check (allow_failures >= 0),   -- items that may fail without failing the job
  attempts integer not null check (attempts between 1 and 100),
  timeout_s double precision not null check (timeout_s > 0),
  weight double precision not null check (weight > 0),
  primary key (graph, name)
);

-- Jobs ------------------------------------------------------------------------------------------

create table public.jobs (
  id uuid primary key,
  tenant_id uuid not null references public.tenants on delete cascade,
  created_by uuid,
  pipeline text not null,
  graph text not null references public.pipeline_graphs,
  document_id uuid references public.documents,
  params jsonb not null default '{}',
  fresh boolean not null default false,
  deadline_at timestamptz,
  reused integer not null default 0,    -- step runs that cost nothing, because their result was there
  status text not null default 'queued' check (status in (
    'queued',            -- submitted; no worker has picked up a step yet
    'running',           -- queued -> running at the first pick-up; awaiting_review -> running when approved
    'awaiting_review',   -- running, queued -> awaiting_review when only a gate is left to move
    'completed',         -- running -> completed when every step is done; terminal
    'failed',            -- queued, running, awaiting_review -> failed with a code; terminal until a person retries (-> queued)
    'cancelled'          -- any that is not terminal -> cancelled by a person; terminal
  )),
  stage text not null default 'initializing',
  progress_current integer not null default 0 check (progress_current >= 0),
  progress_total integer not null default 0 check (progress_total >= 0),
  progress_message text not null default '',
  done_weight double precision not null default 0,
  total_weight double precision not null,
  percent integer not null default 0 check (percent between 0 and 100),
  error_code text,
  error_message text,
  idempotency_key text,
  natural_key text,
  payload_digest text not null,
  last_seq integer not null default 0,
  created_at timestamptz not null,
  started_at timestamptz,
  finished_at timestamptz,
  updated_at timestamptz not null,
  check ((status = 'failed') = (error_code is not null)),
  check ((error_code is null) = (error_message is null)),
  check ((status in ('completed', 'failed', 'cancelled')) = (finished_at is not null)),
  check (status <> 'queued' or finished_at is null)
);
create index jobs_by_tenant on public.jobs (tenant_id, id desc);
create index jobs_by_tenant_status on public.jobs (tenant_id, status, id desc);
create index jobs_by_document on public.jobs (document_id, id desc) where document_id is not null;
-- Not by time: a column of an index that each event changes makes each event write every index.
create index jobs_active on public.jobs (status) where status in ('queued', 'running', 'awaiting_review');
create index jobs_by_deadline on public.jobs (deadline_at)
  where deadline_at is not null and status in ('queued', 'running', 'awaiting_review');
create unique index jobs_idempotency_key on public.jobs (tenant_id, idempotency_key);
-- Ten clicks, one job: without a key, a live or completed job answers for its like. A failed one does not.
create unique index jobs_natural_key on public.jobs (tenant_id, natural_key)
  where status in ('queued', 'running', 'awaiting_review', 'completed');

-- Results: content that steps returned, found again by identity -----------------------------------

create table public.step_results (
  id uuid primary key default ledger.uuid7(),
  tenant_id uuid not null references public.tenants on delete cascade,
  identity text not null check (identity ~ '^[0-9a-f]{64}$'),
  digest text not null check (digest ~ '^[0-9a-f]{64}$'),
  value jsonb,                       -- up to 8 KiB of JSON lives here ...
  blob jsonb,                        -- ... more lives in Storage: {"sha256", "bytes"}
  artifacts jsonb not null default '[]',
  skipped boolean not null default false,
  hits integer not null default 0,
  created_at timestamptz not null default ledger.now(),
  used_at timestamptz not null default ledger.now(),
  check ((value is null) <> (blob is null)),
  check (value is null or octet_length(value::text) <= 16384)
);
create index step_results_by_use on public.step_results (used_at);
create index step_results_by_identity on public.step_results (tenant_id, identity, id desc);

-- Step runs: one step (and item) of one job ------------------------------------------------------

create table public.job_steps (
  id uuid primary key default ledger.uuid7(),
  job_id uuid not null references public.jobs on delete cascade,
  tenant_id uuid not null,
  step text not null,
  item integer check (item >= 0),
  status text not null check (status in (
    'pending',     -- an item without all inputs yet; completed, skipped, failed, cancelled -> pending: done again
    'queued',      -- pending, held, retrying, running -> queued: a queue job exists and no worker has it
    'held',        -- pending, queued, retrying -> held: its tenant is paused
    'running',     -- queued -> running: a worker has it, under the current attempt number
    'retrying',    -- running -> retrying: waits for due_at
    'gated',       -- an open gate: waits for a person
    'completed',   -- running, gated -> completed; terminal
    'skipped',     -- running -> skipped: it had nothing to do; terminal
    'failed',      -- running, gated -> failed; terminal until the job is reopened (-> queued)
    'cancelled'    -- any that is not terminal -> cancelled; terminal until the job is reopened (-> queued)
  )),
  attempt integer not null default 0,          -- the fencing token: every write of an attempt carries it
  failures integer not null default 0,         -- attempts that ended in an error, counted against the step's attempts
  losses integer not null default 0,           -- attempts that ended because their worker died
  queue text not null,
  queue_job_id bigint,
  priority integer,                            -- of the queue job: minus the virtual finish time of its tenant
  worker_id uuid,
  item_value jsonb,
  item_digest text,
  identity text,
  result_id uuid references public.step_results,
  due_at timestamptz,
  progress_current integer not null default 0,
  progress_total integer not null default 0,
  cpu_s real,
  peak_memory_bytes bigint,
  error_code text,
  error_message text,
  created_at timestamptz not null,
  queued_at timestamptz,
  started_at timestamptz,
  finished_at timestamptz,
  unique nulls not distinct (job_id, step, item),
  check ((status in ('queued', 'running')) = (queue_job_id is not null)),
  check ((status = 'running') = (worker_id is not null)),
  check ((status = 'retrying') = (due_at is not null)),
  check ((status in ('completed', 'skipped')) = (result_id is not null)),
  check (status <> 'failed' or error_code is not null)
);
create index job_steps_by_result on public.job_steps (result_id) where result_id is not null;
create index job_steps_running on public.job_steps (worker_id) where status = 'running';
create index job_steps_due on public.job_steps (due_at) where status = 'retrying';
create index job_steps_queued on public.job_steps (queue, queued_at) where status = 'queued';
-- By minus the priority, so that nobody looks here for the tail of one tenant, walking over everybody else's.
create index job_steps_order on public.job_steps (queue, (-priority)) where status = 'queued';
create index job_steps_shares on public.job_steps (tenant_id, queue, priority) where status = 'queued';
create index job_steps_held on public.job_steps (tenant_id) where status = 'held';
create index job_steps_moving on public.job_steps (job_id)
  where status in ('pending', 'queued', 'held', 'running', 'retrying', 'gated');

-- One row per job and step whose width is known: a join is decided by counting down here.
create table public.job_step_totals (
  job_id uuid not null references public.jobs on delete cascade,
  tenant_id uuid not null,
  step text not null,
  total integer not null check (total >= 0),
  completed integer not null default 0 check (completed >= 0),   -- or skipped
  failed integer not null default 0 check (failed >= 0),         -- and allowed to
  mapped boolean not null default false,
  opened_at timestamptz,             -- when its step runs became free to move
  finished_at timestamptz,
  primary key (job_id, step),
  check (completed + failed <= total),
  check ((completed + failed = total and opened_at is not null) = (finished_at is not null))
);

-- Gates: one row each time one opens. Decided once.
create table public.reviews (
  id uuid primary key default ledger.uuid7(),
  job_id uuid not null references public.jobs on delete cascade,
  tenant_id uuid not null,
  pipeline text not null,            -- as the job has it, and never changed there: lists find reviews by it ...
  document_id uuid,                  -- ... and by this
  step text not null,
  step_run uuid not null,
  status text not null default 'open' check (status in (
    'open',          -- waits for a person
    'approved',      -- open -> approved: the job goes on
    'rejected',      -- open -> rejected: the job fails with code rejected
    'reprocessed',   -- open -> reprocessed: the job runs again from a named step
    'expired',       -- open -> expired: nobody decided in time; the job fails with code gate_expired
    'withdrawn'      -- open -> withdrawn: the job ended otherwise
  )),
  comment text not null default '',
  decided_by uuid,
  decided_at timestamptz,
  opened_at timestamptz not null,
  expires_at timestamptz,
  check ((status = 'open') = (decided_at is null))
);
create index reviews_by_tenant on public.reviews (tenant_id, status, id);
create index reviews_by_pipeline on public.reviews (tenant_id, pipeline, status, id);
create index reviews_by_document on public.reviews (document_id, status, id) where document_id is not null;
create index reviews_by_job on public.reviews (job_id, id);
create index reviews_expiring on public.reviews (expires_at) where status = 'open' and expires_at is not null;

-- History: append-only, numbered per job under the job's row lock, so without gaps ---------------

create table public.job_events (
  job_id uuid not null references public.jobs on delete cascade,
  seq integer not null check (seq > 0),
  tenant_id uuid not null,
  at timestamptz not null,
  kind text not null check (kind in (
    'submitted', 'started', 'step_started', 'progress', 'step_completed', 'step_skipped', 'reused', 'step_retrying',
    'step_failed', 'step_released', 'gate_opened', 'gate_decided', 'awaiting_review', 'repaired', 'completed', 'failed',
    'cancelled', 'reopened'
  )),
  stage text,
  step text,
  item integer,
  attempt integer,
  actor uuid,
  message text not null default '',
  data jsonb not null default '{}',
  primary key (job_id, seq)
);

create table public.artifacts (
  id uuid primary key default ledger.uuid7(),
  job_id uuid not null references public.jobs on delete cascade,
  tenant_id uuid not null,
  step text not null,
  item integer,
  name text not null check (length(name) between 1 and 200),
  media_type text not null,
  bytes bigint not null,
  sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  created_at timestamptz not null,
  unique nulls not distinct (job_id, step, item, name)
);

-- For operators: the detail of every failure, and who is alive ------------------------------------

create table ops.failures (
  id bigint generated always as identity primary key,
  job_id uuid not null references public.jobs on delete cascade,
  step text,
  item integer,
  attempt integer,
  at timestamptz not null,
  code text not null,
  detail text not null
);
create index failures_by_job on ops.failures (job_id, id);

create table ops.workers (
  id uuid primary key,
  host text not null,
  pid integer not null,
  deploy text not null,
  queues text[] not null,
  started_at timestamptz not null,
  heartbeat_at timestamptz not null,
  held jsonb not null default '{}',        -- step run -> attempt: what this worker has in hand, as of its heartbeat
  stopping boolean not null default false
);
create index workers_by_heartbeat on ops.workers (heartbeat_at);

-- When a queue job was last picked up from each queue. Outlives the workers: a deploy must not look like a standstill.
create table ops.pickups (
  queue text primary key,
  at timestamptz not null,
  counted integer not null default 0,           -- since `counting_since`, for ...
  counting_since timestamptz not null default ledger.now(),
  per_s double precision                        -- ... the rate of the last full minute; null: not known yet
);

-- What the sweep must know when nobody is there to tell it: pg_cron's call. Written by each release.
create table ops.sweep_settings (
  singleton boolean primary key default true check (singleton),
  lease_s double precision not null,
  queue_timeout_s double precision not null,
  max_losses integer not null
);

-- One row for each chore that must not be forgotten: when it was last begun, when it last ended well, and its yield.
create table ops.chores (
  name text primary key,
  taken_at timestamptz,
  ran_at timestamptz,
  worker_id uuid,
  repairs bigint not null default 0
);

-- What is paused: a queue for everybody, or a tenant in all queues.
create table ops.pauses (
  scope text not null check (scope in ('queue', 'tenant')),
  name text not null,
  reason text not null default '',
  since timestamptz not null,
  primary key (scope, name)
);

-- Providers that asked us to slow down: until then, no queue job of that queue is claimed.
create table ops.slowdowns (
  queue text primary key,
  until timestamptz not null,
  reason text not null
);

-- How many step runs a job of a graph has in a queue: what one more such job will take of its tenant's share. Counted in the
-- graph, and learned from completed jobs where steps are mapped.
create table ops.job_sizes (
  graph text not null references public.pipeline_graphs on delete cascade,
  queue text not null,
  runs double precision not null check (runs >= 1),
  primary key (graph, queue)
);

-- A tenant's weight in a queue: twice the weight, twice the share. Absent: 1.
create table ops.shares (
  tenant_id uuid not null references public.tenants on delete cascade,
  queue text not null,
  weight double precision not null check (weight > 0),
  primary key (tenant_id, queue)
);
