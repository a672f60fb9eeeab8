-- What each attempt is asked and told about its inputs.

-- What a step run was given by an earlier step: the digest of one result, or of all results of a mapped step in the order of
-- their items. One result is the common case, and is looked up instead of being gathered.
create or replace function ledger.input_digest(of_job uuid, of_step text, of_item integer) returns text
language plpgsql stable as $$
declare
  one text;
begin
  select r.digest into one from public.job_steps s join public.step_results r on r.id = s.result_id
  where s.job_id = of_job and s.step = of_step and s.item is not distinct from of_item;
  if found then
    return one;
  end if;
  return (
    select encode(sha256(convert_to(coalesce(string_agg(r.digest, ',' order by s.item), ''), 'UTF8')), 'hex')
    from public.job_steps s join public.step_results r on r.id = s.result_id
    where s.job_id = of_job and s.step = of_step and (of_item is null or s.item = of_item));
end $$;

revoke all on all functions in schema ledger from anon, authenticated, public;
