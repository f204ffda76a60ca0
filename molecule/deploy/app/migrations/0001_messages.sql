-- SPDX-License-Identifier: GPL-3.0-or-later
CREATE TABLE messages (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL, draft text);
