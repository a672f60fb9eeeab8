-- Which webhooks take nothing or were disabled, since when, why, and how much waits for them?
select w.id as webhook, w.tenant_id, split_part(w.url, '/', 3) as host, now() - w.failing_since as fails_for, w.disabled_reason,
  now() - w.disabled_at as disabled_for, waiting.pending, now() - waiting.oldest as oldest, waiting.next_due - now() as next_in,
  last.error_code, last.answer_status, last.error_message
from public.webhooks w
cross join lateral (
  select count(*) as pending, min(d.created_at) as oldest, min(d.due_at) as next_due
  from public.webhook_deliveries d where d.webhook_id = w.id and d.status = 'pending') waiting
left join lateral (
  select d.error_code, d.answer_status, d.error_message from public.webhook_deliveries d
  where d.webhook_id = w.id and d.error_code is not null and d.error_code <> 'webhook_disabled'
  order by d.id desc limit 1) last on true
where w.failing_since is not null or w.disabled_at is not null or waiting.oldest < now() - interval '5 minutes'
order by w.disabled_at is not null, waiting.pending desc, w.id;
