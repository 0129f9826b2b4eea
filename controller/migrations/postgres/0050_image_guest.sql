-- The machine an image's system expects.
ALTER TABLE images ADD COLUMN guest TEXT NOT NULL DEFAULT 'linux-bios' CHECK (guest IN ('linux-bios', 'linux-uefi', 'windows'));
