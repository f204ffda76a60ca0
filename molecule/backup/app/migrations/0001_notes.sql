-- SPDX-License-Identifier: GPL-3.0-or-later
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL, place vector(3));
CREATE INDEX notes_place ON notes USING hnsw (place vector_l2_ops);
CREATE TABLE beats (at timestamptz NOT NULL DEFAULT now());
