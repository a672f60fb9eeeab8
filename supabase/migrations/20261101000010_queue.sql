-- Procrastinate's triggers, narrowed to its own chores.
--
-- A step run's queue job needs none of them: its history is in the ledger, no periodic schedule points to it, and the
-- ledger wakes the workers once per queue and transaction, not twice per row. Chores keep everything.

drop trigger procrastinate_jobs_notify_queue_job_inserted_v1 on procrastinate.procrastinate_jobs;
create trigger procrastinate_jobs_notify_queue_job_inserted_v1
  after insert on procrastinate.procrastinate_jobs for each row
  when (new.status = 'todo' and new.task_name <> 'run_step')
  execute function procrastinate.procrastinate_notify_queue_job_inserted_v1();

drop trigger procrastinate_trigger_status_events_insert_v1 on procrastinate.procrastinate_jobs;
create trigger procrastinate_trigger_status_events_insert_v1
  after insert on procrastinate.procrastinate_jobs for each row
  when (new.status = 'todo' and new.task_name <> 'run_step')
  execute function procrastinate.procrastinate_trigger_function_status_events_insert_v1();

drop trigger procrastinate_trigger_status_events_update_v1 on procrastinate.procrastinate_jobs;
create trigger procrastinate_trigger_status_events_update_v1
  after update of status on procrastinate.procrastinate_jobs for each row
  when (new.task_name <> 'run_step')
  execute function procrastinate.procrastinate_trigger_function_status_events_update_v1();

drop trigger procrastinate_trigger_delete_jobs_v1 on procrastinate.procrastinate_jobs;
create trigger procrastinate_trigger_delete_jobs_v1
  before delete on procrastinate.procrastinate_jobs for each row
  when (old.task_name <> 'run_step')
  execute function procrastinate.procrastinate_unlink_periodic_defers_v1();

-- Procrastinate's indexes, narrowed in the same way. Its own serve a fetch from all queues at once and jobs with locks;
-- ours is taken from queue by queue, so that what waits in one is not walked over to find what waits in another.

drop index procrastinate.procrastinate_jobs_priority_idx_v1;
drop index procrastinate.procrastinate_jobs_queue_name_idx_v1;
drop index procrastinate.procrastinate_jobs_id_lock_idx_v1;
create index queue_jobs_to_take on procrastinate.procrastinate_jobs (queue_name, priority desc, id) where status = 'todo';

drop index procrastinate.procrastinate_jobs_queueing_lock_idx_v1;
create unique index procrastinate_jobs_queueing_lock_idx_v1 on procrastinate.procrastinate_jobs (queueing_lock)
  where status = 'todo' and queueing_lock is not null;
drop index procrastinate.procrastinate_jobs_lock_idx_v1;
create unique index procrastinate_jobs_lock_idx_v1 on procrastinate.procrastinate_jobs (lock)
  where status = 'doing' and lock is not null;
