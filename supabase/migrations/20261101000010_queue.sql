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
