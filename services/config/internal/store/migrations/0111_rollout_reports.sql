-- Reports are judged by workload, so that none hides what others see, and are bounded by workload and in all.

ALTER TABLE settings.rollout_report ADD COLUMN workload text NOT NULL DEFAULT ''; -- the identity in reporter
CREATE INDEX rollout_report_workload ON settings.rollout_report (rollout_uid, workload);
GRANT UPDATE (workload) ON settings.rollout_report TO {{service}};

-- Baselines by workload, as JSON; what baseline_requests, baseline_errors and baseline_latency hold is used no longer.
ALTER TABLE settings.rollout ADD COLUMN baselines text NOT NULL DEFAULT '{}';
GRANT UPDATE (baselines) ON settings.rollout TO {{service}};

-- Which process looks whether rollouts are due, so that not all of them read all reports.
CREATE TABLE settings.rollout_turn (
    one    boolean     PRIMARY KEY DEFAULT true CHECK (one),
    holder text        NOT NULL,
    until  timestamptz NOT NULL -- then it is anybody's
);
INSERT INTO settings.rollout_turn (holder, until) VALUES ('', '-infinity');
GRANT SELECT, UPDATE (holder, until) ON settings.rollout_turn TO {{service}};
