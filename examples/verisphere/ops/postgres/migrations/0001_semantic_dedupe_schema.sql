-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- Semantic dedupe schema and the role that the services log in as.
--
-- Two things differ from the first draft of this file:
--
-- 1. The index. The draft built an ivfflat index on vector(3072), which pgvector refuses ("column cannot have more than
--    2000 dimensions for ivfflat index"): indexes stop at 2,000 dimensions for vector and at 4,000 for halfvec. The
--    column keeps full precision; an HNSW index is built on the expression embedding::halfvec(3072), and a query must
--    order by exactly this expression to use it.
-- 2. The password. It was in this file, so in the repository for ever. Now it is the psql variable app_password:
--        psql -v ON_ERROR_STOP=1 -v app_password="$POSTGRES_APP_PASS" -f 0001_semantic_dedupe_schema.sql
--    groundwork.backend.pgvector_migrate fills the same variable from its "variables" option. Without a value, the
--    ALTER ROLE below is a syntax error and nothing of this file is applied.
BEGIN;

-- psql does not look for variables inside $$ ... $$, so the role is made here and its password is set further down.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'verisphere_app') THEN
    CREATE ROLE verisphere_app LOGIN;
  END IF;
  -- Whatever this database is called.
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO verisphere_app', current_database());
END $$;

-- Keep the next statement out of the server's own log, also where log_statement is on, until the end of this
-- transaction. Only a superuser may: without the right, the server's log settings stand.
DO $$
BEGIN
  PERFORM set_config('log_statement', 'none', true),
          set_config('log_min_duration_statement', '-1', true),
          set_config('log_min_error_statement', 'panic', true);
EXCEPTION WHEN insufficient_privilege THEN
  NULL;
END $$;

ALTER ROLE verisphere_app PASSWORD :'app_password';

CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE IF NOT EXISTS claims (
  claim_id           BIGSERIAL PRIMARY KEY,
  claim_text         TEXT NOT NULL,
  content_hash       TEXT NOT NULL UNIQUE,
  created_at         TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- OpenAI text-embedding-3-large => 3072 dims (adjust if you change model)
CREATE TABLE IF NOT EXISTS claim_embeddings (
  claim_id           BIGINT PRIMARY KEY REFERENCES claims(claim_id) ON DELETE CASCADE,
  embedding_model    TEXT NOT NULL,
  embedding          vector(3072) NOT NULL,
  updated_at         TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS claim_embeddings_hnsw
ON claim_embeddings USING hnsw ((embedding::halfvec(3072)) halfvec_cosine_ops);

-- Claims are compared within one embedding model only. After a change of the model, its few vectors are islands in a
-- graph of the others, and a search of the graph may never reach them. With this index the planner reads a small group
-- exactly and keeps the graph for a large one.
CREATE INDEX IF NOT EXISTS claim_embeddings_model ON claim_embeddings (embedding_model);

-- What the service does, and no more: it never deletes, and it never rewrites a claim.
GRANT USAGE ON SCHEMA public TO verisphere_app;
GRANT SELECT, INSERT ON claims TO verisphere_app;
GRANT USAGE ON SEQUENCE claims_claim_id_seq TO verisphere_app;
GRANT SELECT, INSERT, UPDATE ON claim_embeddings TO verisphere_app;

-- /ready compares the migration ledger with what the code needs. The runner makes the ledger before it runs this file;
-- plain psql has none.
DO $$
BEGIN
  IF to_regclass('public.schema_migrations') IS NOT NULL THEN
    GRANT SELECT ON public.schema_migrations TO verisphere_app;
  END IF;
END $$;

COMMIT;
