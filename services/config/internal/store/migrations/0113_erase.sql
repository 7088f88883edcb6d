-- What a tenant set can be erased with it.

CREATE INDEX document_revision_layer ON settings.document_revision (layer, layer_id);
GRANT DELETE ON settings.document_revision, settings.rollout TO {{service}};
