-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- One row for each verdict of POST /claims, so that a threshold can be judged afterwards on real decisions.
-- It only adds: a service that knows nothing of this table keeps working, so a deploy can be rolled back across it.
BEGIN;

CREATE TABLE IF NOT EXISTS similarity_checks (
  check_id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  claim_id           BIGINT NOT NULL REFERENCES claims(claim_id) ON DELETE CASCADE,
  nearest_claim_id   BIGINT REFERENCES claims(claim_id) ON DELETE SET NULL,
  distance           DOUBLE PRECISION,
  threshold          DOUBLE PRECISION NOT NULL,
  duplicate          BOOLEAN NOT NULL,
  embedding_model    TEXT NOT NULL,
  checked_at         TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Foreign keys have no index of their own; without one, deleting a claim scans the whole table.
CREATE INDEX IF NOT EXISTS similarity_checks_claim_id ON similarity_checks (claim_id);
CREATE INDEX IF NOT EXISTS similarity_checks_nearest_claim_id ON similarity_checks (nearest_claim_id);

-- An identity column needs no right on its sequence.
GRANT SELECT, INSERT ON similarity_checks TO verisphere_app;

COMMIT;
