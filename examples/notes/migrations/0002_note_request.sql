-- What a note was made by, so that a request_id that is used for another request is told.
-- Notes of before, and of replicas that are older than this, have none.
ALTER TABLE app.note ADD COLUMN request_digest bytea;
