-- Since when an endpoint is heard without a break: when its link began, or when it was heard again after it was taken for
-- silent. What was measured before says nothing of now.
ALTER TABLE endpoints ADD COLUMN back_at INTEGER;

-- How its link is carried: by a WebSocket (NULL), or by requests (`poll`) because something on the way takes the upgrade away.
ALTER TABLE endpoints ADD COLUMN linked_by TEXT;
