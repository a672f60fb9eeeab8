-- What is known about a document: described by steps, searched by users, deleted by them; and bytes that nothing names.

-- What steps have found out ---------------------------------------------------------------------------

alter table public.documents
  add column summary text not null default '' check (length(summary) <= 2000),
  add column keywords text[] not null default '{}' check (cardinality(keywords) <= 100),
  add column categories jsonb not null default '{}' check (jsonb_typeof(categories) = 'object'),   -- name -> value
  add column language text check (length(language) <= 35),
  add column metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
  add column described_at timestamptz,
  add column described_by uuid,         -- the job
  add column finalised_at timestamptz,
  add column finalised_by uuid,         -- the job
  drop constraint documents_status_check,
  add constraint documents_status_check check (status in (
    'uploaded',      -- its bytes are here; what is known about it may change with every job
    'finalised'      -- uploaded -> finalised by a final description; from then on only another final one replaces it
  )),
  add check ((status = 'finalised') = (finalised_at is not null));

alter table public.step_results
  add column description jsonb,         -- of the job's document, as the step gave it: so a result that is used again describes again
  add column blobs text[] default '{}'; -- the sha256 of all bytes it points to; null: not known yet, see ledger.unread_results

-- Searching -------------------------------------------------------------------------------------------
-- The words of one document: of its text with weight D, of what is known about it with A to C, and without any position
-- its tenant, keywords and categories, which are looked up as a whole. One index answers for one tenant at a time.

create table public.document_words (
  document_id uuid primary key references public.documents on delete cascade,
  tenant_id uuid not null,
  labels tsvector not null,             -- what is known about it: short, for ranking
  words tsvector not null               -- everything, for finding
);

-- A tsquery of one lexeme, taken as it is.
create function ledger.lexeme(exactly text) returns tsquery language sql immutable as $$
  select ('''' || replace(replace(exactly, '\', '\\'), '''', '''''') || '''')::tsquery
$$;

create function ledger.tenant_lexeme(of_tenant uuid) returns text language sql immutable as $$
  select 't:' || of_tenant
$$;

create function ledger.keyword_lexeme(keyword text) returns text language sql immutable as $$
  select 'k:' || lower(keyword)
$$;

create function ledger.category_lexeme(name text, value text) returns text language sql immutable as $$
  select 'c:' || lower(name) || '=' || lower(value)
$$;

-- The words of what is known about a document, by weight. Names of files are words with dots and dashes between them.
create function ledger.label_words(title text, filename text, summary text, keywords text[], categories jsonb)
returns tsvector language plpgsql immutable as $$
begin
  return setweight(to_tsvector('pg_catalog.simple', title), 'A')
      || setweight(to_tsvector('pg_catalog.simple', translate(filename, '._-', '   ')), 'B')
      || setweight(to_tsvector('pg_catalog.simple', array_to_string(keywords, ' ')), 'B')
      || setweight(to_tsvector('pg_catalog.simple',
                               (select coalesce(string_agg(c.value, ' '), '') from jsonb_each_text(categories) c)), 'B')
      || setweight(to_tsvector('pg_catalog.simple', summary), 'C');
end $$;

-- File a document under its words, with its text (`body`) or with the words that its text had before. A tsvector holds one
-- MiB: of a text with more different words than that, the beginning is found.
create function ledger.index_document(document public.documents, body text default null) returns void
language plpgsql as $$
declare
  known tsvector := ledger.label_words(document.title, document.filename, document.summary, document.keywords,
                                       document.categories);
  whole tsvector := array_to_tsvector(
    ledger.tenant_lexeme(document.tenant_id)
    || array(select ledger.keyword_lexeme(k) from unnest(document.keywords) k)
    || array(select ledger.category_lexeme(c.key, c.value) from jsonb_each_text(document.categories) c));
  found_before tsvector := '';
  all_words tsvector;
begin
  if body is null then
    select ts_filter(w.words, '{d}') into found_before from public.document_words w where w.document_id = document.id;
  end if;
  while all_words is null loop
    begin
      all_words := coalesce(to_tsvector('pg_catalog.simple', body), found_before, '') || known || whole;
    exception when program_limit_exceeded then
      body := left(coalesce(body, ''), length(body) / 2);
    end;
  end loop;
  insert into public.document_words as w (document_id, tenant_id, labels, words)
  values (document.id, document.tenant_id, known, all_words)
  on conflict (document_id) do update set labels = excluded.labels, words = excluded.words;
end $$;

-- Whoever changes what is known about a document need not think of its words.
create function ledger.follow_document() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  perform ledger.index_document(new);
  return null;
end $$;
create trigger index_new after insert on public.documents for each row execute function ledger.follow_document();
create trigger index_changed after update on public.documents for each row
  when ((old.title, old.filename, old.summary, old.keywords, old.categories)
        is distinct from (new.title, new.filename, new.summary, new.keywords, new.categories))
  execute function ledger.follow_document();

select ledger.index_document(d) from public.documents d;

create index document_words_by_word on public.document_words using gin (words);
create index documents_by_status on public.documents (tenant_id, status, id desc);
create index documents_by_kind on public.documents (tenant_id, kind, id desc);
create index documents_by_uploader on public.documents (tenant_id, uploaded_by, id desc);

alter table public.document_words enable row level security;
create policy "members see their tenant's words" on public.document_words
  for select to authenticated using (tenant_id in (select access.tenants()));
revoke all on public.document_words from anon, authenticated, public;
grant select on public.document_words to authenticated;

-- Likeness of letters, for slips of the pen in titles and names: where the database has pg_trgm. Elsewhere nothing is alike,
-- and words alone are found.
create function ledger.alike(of_tenant uuid, asked text) returns setof uuid language sql stable as $$
  select null::uuid where false
$$;
create function ledger.likeness(asked text, title text, filename text) returns real language sql immutable as $$
  select 0::real
$$;
do $$
declare
  home text;
begin
  if exists (select from pg_available_extensions where name = 'pg_trgm') then
    create extension if not exists pg_trgm with schema extensions;
    select e.extnamespace::regnamespace::text into home from pg_extension e where e.extname = 'pg_trgm';
    -- Its settings are known once its library is there.
    execute format('select %s.similarity(%L, %L)', home, 'a', 'b');
    execute format($sql$
      create index documents_by_letters on public.documents using gin (title %1$s.gin_trgm_ops, filename %1$s.gin_trgm_ops);
      create or replace function ledger.alike(of_tenant uuid, asked text) returns setof uuid language plpgsql stable
      set pg_trgm.word_similarity_threshold = 0.4 as $f$
      begin
        return query select d.id from public.documents d
          where d.tenant_id = of_tenant and (asked operator(%1$s.<%%) d.title or asked operator(%1$s.<%%) d.filename);
      end $f$;
      create or replace function ledger.likeness(asked text, title text, filename text) returns real
      language sql immutable as $f$
        select greatest(%1$s.word_similarity(asked, title), %1$s.word_similarity(asked, filename))
      $f$;
    $sql$, home);
  end if;
end $$;

-- The least UUIDv7 of a time.
create function ledger.first_id(at timestamptz) returns uuid language sql immutable as $$
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- A page of a tenant's documents, by id: newest first, or the most relevant first. For members of the tenant; as their
-- owner, because under row-level security no index would be asked for words. `last_id`, `last_relevance`: where the page
-- before ended. Ids sort by birth, as the clock of the program told it: ten minutes are allowed for a clock that is off.
create function access.find_documents(
  of_tenant uuid, asked text, with_status text, with_kind text, by_user uuid, keyword text, category_name text,
  category_value text, created_from timestamptz, created_until timestamptz, by_relevance boolean, last_id uuid,
  last_relevance integer, most integer
) returns table (id uuid, relevance integer)
language plpgsql stable security definer set search_path = '' set plan_cache_mode = force_custom_plan rows 50 as $$
declare
  since uuid := ledger.first_id(created_from - interval '10 minutes');
  till uuid := ledger.first_id(created_until + interval '10 minutes');
  sought tsquery := websearch_to_tsquery('pg_catalog.simple', asked);
  scope tsquery := ledger.lexeme(ledger.tenant_lexeme(of_tenant));
  plain boolean := asked is not null and (numnode(sought) = 0 or sought::text !~ '[!|<]');
begin
  if of_tenant not in (select access.tenants()) then
    return;
  end if;
  if asked is null and keyword is null and category_name is null then
    return query
      select d.id, 0 from public.documents d
      where d.tenant_id = of_tenant and (last_id is null or d.id < last_id)
        and (with_status is null or d.status = with_status) and (with_kind is null or d.kind = with_kind)
        and (by_user is null or d.uploaded_by = by_user)
        and (created_from is null or d.created_at >= created_from and d.id >= since)
        and (created_until is null or d.created_at < created_until and d.id < till)
      order by d.id desc limit most;
    return;
  end if;
  scope := scope && coalesce(ledger.lexeme(ledger.keyword_lexeme(keyword)), scope)
        && coalesce(ledger.lexeme(ledger.category_lexeme(category_name, category_value)), scope);
  sought := case when numnode(sought) > 0 then sought end;
  return query
    with found as materialized (
      select w.document_id as id from public.document_words w
      where (asked is null or sought is not null) and w.words @@ (scope && coalesce(sought, scope))
      union
      select a from ledger.alike(of_tenant, asked) a
      where plain and exists (select from public.document_words w where w.document_id = a and w.words @@ scope)
    ), ranked as materialized (
      select d.id, case when by_relevance then (1000000 * (
          coalesce(ts_rank(w.labels, sought), 0)
          + case when plain then ledger.likeness(asked, d.title, d.filename) else 0 end))::integer else 0 end as relevance
      from found f join public.documents d on d.id = f.id join public.document_words w on w.document_id = f.id
      where d.tenant_id = of_tenant
        and (with_status is null or d.status = with_status) and (with_kind is null or d.kind = with_kind)
        and (by_user is null or d.uploaded_by = by_user)
        and (created_from is null or d.created_at >= created_from)
        and (created_until is null or d.created_at < created_until)
    )
    select r.id, r.relevance from ranked r
    where last_id is null or (r.relevance, r.id) < (last_relevance, last_id)
    order by r.relevance desc, r.id desc limit most;
end $$;

revoke all on function access.find_documents(uuid, text, text, text, uuid, text, text, text, timestamptz, timestamptz, boolean,
                                             uuid, integer, integer) from public, anon;
grant execute on function access.find_documents(uuid, text, text, text, uuid, text, text, text, timestamptz, timestamptz, boolean,
                                                uuid, integer, integer) to authenticated;

-- Describing ------------------------------------------------------------------------------------------

-- Write what a step run's result says about the job's document; nothing when it says nothing. What it leaves out stays. What
-- a finalised document is known by was approved: only a final description replaces it. `body`: its text, to be found by.
create function ledger.describe_document(job public.jobs, run public.job_steps, body text) returns void
language plpgsql as $$
declare
  told jsonb := (select r.description from public.step_results r where r.id = run.result_id);
  is_final boolean := coalesce((told ->> 'final')::boolean, false);
  at timestamptz := ledger.now();
  document public.documents;
begin
  if told is null then
    return;
  end if;
  update public.documents d set
    title = coalesce(told ->> 'title', d.title), summary = coalesce(told ->> 'summary', d.summary),
    keywords = case when told ? 'keywords' then array(select jsonb_array_elements_text(told -> 'keywords'))
               else d.keywords end,
    categories = coalesce(told -> 'categories', d.categories), language = coalesce(told ->> 'language', d.language),
    metadata = coalesce(told -> 'metadata', d.metadata), described_at = at, described_by = job.id,
    status = case when is_final then 'finalised' else d.status end,
    finalised_at = case when is_final then at end, finalised_by = case when is_final then job.id end
  where d.id = job.document_id and (is_final or d.status = 'uploaded')
  returning * into document;
  if found and body is not null then
    perform ledger.index_document(document, body);
  end if;
end $$;

-- Bytes that nothing names ------------------------------------------------------------------------------
-- Whoever stores bytes announces them first, and names them in a row soon after. Bytes whose rows go are marked by
-- triggers. What is due here and named by no row is deleted from Storage; what is named is taken off the list.

create table ops.loose_bytes (
  tenant_id uuid not null,
  sha256 text not null,
  due_at timestamptz not null,
  primary key (tenant_id, sha256)
);
create index loose_bytes_due on ops.loose_bytes (due_at);

create index artifacts_by_content on public.artifacts (tenant_id, sha256);
create index step_results_by_blob on public.step_results using gin (blobs) where blobs <> '{}';
create index step_results_unread on public.step_results (id) where blobs is null;

-- What results of before point to, as far as the row tells; those in Storage are read by a chore.
update public.step_results r set blobs = case when r.blob is null then array(
  select distinct b from (select jsonb_path_query(r.value, '$.**.sha256') #>> '{}' union all
                          select jsonb_path_query(r.artifacts, '$[*].sha256') #>> '{}') x(b) where b is not null) end
where r.blob is not null or r.value @? '$.**.sha256' or r.artifacts <> '[]';

-- Announce bytes that are about to be stored: for so many seconds they need no name. Waits while they are being deleted.
create function ledger.announce_bytes(of_tenant uuid, digests text[], for_s double precision) returns void
language sql volatile as $$
  insert into ops.loose_bytes as l (tenant_id, sha256, due_at)
  select distinct of_tenant, d, ledger.now() + make_interval(secs => for_s) from unnest(digests) d order by d
  on conflict (tenant_id, sha256) do update set due_at = greatest(l.due_at, excluded.due_at)
$$;

-- Rows that named bytes are gone, by whatever way. A minute is left to those who are just being sent them.
create function ledger.loosen_bytes() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into ops.loose_bytes (tenant_id, sha256, due_at)
  select distinct g.tenant_id, g.sha256, ledger.now() + interval '1 minute' from gone g order by 1, 2
  on conflict do nothing;
  return null;
end $$;
create function ledger.loosen_results() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into ops.loose_bytes (tenant_id, sha256, due_at)
  select distinct g.tenant_id, b, ledger.now() + interval '1 minute' from gone g, unnest(g.blobs) b order by 1, 2
  on conflict do nothing;
  return null;
end $$;
create trigger loosen after delete on public.documents referencing old table as gone
  for each statement execute function ledger.loosen_bytes();
create trigger loosen after delete on public.artifacts referencing old table as gone
  for each statement execute function ledger.loosen_bytes();
create trigger loosen after delete on public.step_results referencing old table as gone
  for each statement execute function ledger.loosen_results();

create function ledger.bytes_are_named(of_tenant uuid, content text) returns boolean language plpgsql stable as $$
begin
  return exists (select from public.documents d where d.tenant_id = of_tenant and d.sha256 = content)
      or exists (select from public.artifacts a where a.tenant_id = of_tenant and a.sha256 = content)
      or exists (select from public.step_results r
                 where r.blobs @> array[content] and r.blobs <> '{}' and r.tenant_id = of_tenant);
end $$;

-- What is due, at most so much of it: how much was looked at, and the bytes that must go, as {"tenant", "sha256"}. Their
-- rows stay locked until the transaction ends, so that nobody stores the same bytes again in between: delete them there.
create function ledger.take_loose_bytes(most integer, out looked_at integer, out nameless jsonb) language plpgsql as $$
declare
  due ops.loose_bytes[];
begin
  -- As long as there are results of which nobody knows what they point to, anything may be named.
  due := case when exists (select from public.step_results r where r.blobs is null) then '{}' else array(
    select l from ops.loose_bytes l where l.due_at <= ledger.now() order by l.due_at limit most for update skip locked) end;
  looked_at := cardinality(due);
  -- Names are looked for only now: whatever was announced before the rows were locked has been seen.
  select coalesce(jsonb_agg(jsonb_build_object('tenant', d.tenant_id, 'sha256', d.sha256)), '[]') into nameless
  from unnest(due) d where not ledger.bytes_are_named(d.tenant_id, d.sha256);
  delete from ops.loose_bytes l using unnest(due) d where l.tenant_id = d.tenant_id and l.sha256 = d.sha256;
end $$;

-- Results made before it was written down what they point to, whose JSON is in Storage.
create function ledger.unread_results(most integer) returns table (id uuid, tenant_id uuid, blob jsonb, artifacts jsonb)
language sql stable as $$
  select r.id, r.tenant_id, r.blob, r.artifacts from public.step_results r where r.blobs is null order by r.id limit most
$$;

create function ledger.note_blobs(of_result uuid, digests text[]) returns void language sql volatile as $$
  update public.step_results r set blobs = digests where r.id = of_result and r.blobs is null
$$;

-- Deleting --------------------------------------------------------------------------------------------

-- Deletions, for whoever has to prove them: nothing of the documents themselves.
create table ops.deletions (
  document_id uuid primary key,
  tenant_id uuid not null,
  deleted_by uuid,
  deleted_at timestamptz not null,
  jobs integer not null                 -- went with it
);

-- Forget those of the given results that no step run refers to.
create function ledger.forget_results(results uuid[]) returns void language plpgsql as $$
begin
  perform from public.step_results r where r.id = any(results) order by r.id for update;
  -- Looked at under the lock: whoever was just using one again has been waited for.
  delete from public.step_results r
  where r.id = any(results) and not exists (select from public.job_steps s where s.result_id = r.id);
end $$;

-- Remove a document and everything made of it: its jobs with their history and artifacts, and what only they had as results.
-- Refuses while a job of it is not over, unless `forced`: then these are cancelled. Returns how many jobs went with it.
create function ledger.delete_document(of_document uuid, of_tenant uuid, by_user uuid, forced boolean) returns integer
language plpgsql as $$
declare
  jobs uuid[] := array(select j.id from public.jobs j where j.document_id = of_document and j.tenant_id = of_tenant
                       order by j.id for update);
  live uuid[] := array(select j.id from public.jobs j where j.id = any(jobs) and j.finished_at is null order by j.id);
  results uuid[];
begin
  perform from public.documents d where d.id = of_document and d.tenant_id = of_tenant for update;
  if not found then
    perform ledger.refuse(404, 'document_not_found', 'There is no such document.');
  elsif exists (select from public.jobs j where j.document_id = of_document and j.id <> all(jobs)) then
    perform ledger.refuse(409, 'try_again', 'A job on this document began at this very moment. Please send the request again.');
  elsif live <> '{}' and not forced then
    perform ledger.refuse(409, 'document_in_use', 'Work on this document is not over yet.',
                          jsonb_build_object('job_id', live[1], 'jobs', cardinality(live)));
  end if;
  perform ledger.cancel(j, of_tenant, by_user, 'Its document was deleted.') from unnest(live) j;
  results := array(select distinct s.result_id from public.job_steps s where s.job_id = any(jobs) and s.result_id is not null);
  -- A batch still says how its items ended, and not what they were.
  update public.batch_items i set title = null, path = null, params = '{}'
  where i.batch_id in (select j.batch_id from public.jobs j where j.id = any(jobs)) and i.job_id = any(jobs);
  delete from public.jobs j where j.id = any(jobs);
  perform ledger.forget_results(results);
  delete from public.documents d where d.id = of_document;
  -- The row of its upload stays until the store is cleared of that, and names nothing any more.
  update public.uploads u set filename = 'deleted', title = 'deleted' where u.id = of_document;
  insert into ops.deletions (document_id, tenant_id, deleted_by, deleted_at, jobs)
  values (of_document, of_tenant, by_user, ledger.now(), cardinality(jobs));
  return cardinality(jobs);
end $$;

-- Forget what steps did, files included: there may be fewer items or other names this time. Items whose source stays are
-- laid out already and only made ready again. Results that were not good enough are not kept for anybody.
create or replace function ledger.undo_steps(job public.jobs, undone text[]) returns void language plpgsql as $$
declare
  results uuid[] := array(select distinct s.result_id from public.job_steps s
                          where s.job_id = job.id and s.step = any(undone) and s.result_id is not null);
begin
  delete from public.artifacts a where a.job_id = job.id and a.step = any(undone);
  delete from public.job_steps s using public.pipeline_steps p
  where s.job_id = job.id and s.step = any(undone) and p.graph = job.graph and p.name = s.step
    and (p.map is null or p.map = any(undone));
  delete from public.job_step_totals t using public.pipeline_steps p
  where t.job_id = job.id and t.step = any(undone) and p.graph = job.graph and p.name = t.step
    and (p.map is null or p.map = any(undone));
  update public.job_steps s set
    status = 'pending', failures = 0, losses = 0, result_id = null, error_code = null, error_message = null,
    finished_at = null
  where s.job_id = job.id and s.step = any(undone);
  update public.job_step_totals t set completed = 0, failed = 0, opened_at = null, finished_at = null
  where t.job_id = job.id and t.step = any(undone);
  perform ledger.forget_results(results);
end $$;

revoke all on all tables in schema ops from anon, authenticated, public;
revoke all on all functions in schema ledger from anon, authenticated, public;
