-- When the certificate ended that the newest one was issued from: its key may ask again, in case the answer was lost.
ALTER TABLE endpoints ADD COLUMN renewed_from INTEGER;
