-- Whether as many messages wait for an endpoint that fails as may. It is counted when the endpoint is served, because to count
-- with each event would have one tenant's backlog cost the events of all.
ALTER TABLE webhook.endpoint ADD COLUMN stuck boolean NOT NULL DEFAULT false;
GRANT UPDATE (stuck) ON webhook.endpoint TO {{service}};
