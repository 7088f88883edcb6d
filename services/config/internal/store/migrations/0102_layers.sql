-- Regions, and the environments of tenants, are layers too. The id of an environment's layer is "{tenant's uid}/{environment}".

ALTER TABLE settings.document DROP CONSTRAINT document_layer_check;
ALTER TABLE settings.document ADD CONSTRAINT document_layer_check
    CHECK (layer IN ('platform', 'plan', 'region', 'tenant', 'environment'));

-- For whoever changes a tenant's document, and must look at all its environments.
CREATE INDEX document_environment ON settings.document (namespace_uid, split_part(layer_id, '/', 1))
    WHERE layer = 'environment';
