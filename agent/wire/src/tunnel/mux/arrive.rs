//! What comes from the other side, judged frame by frame before it changes anything.

use std::time::Duration;

use super::{
    ACK_BYTES, ACK_WITHIN, Class, Event, Fault, HEADER, Header, Kind, MESSAGES, Mux, Role, Sending, Stream,
    THIN_PAYLOAD, keep,
};

impl Mux {
    /// A frame came.
    ///
    /// # Errors
    /// What the other side did against the rules: close the connection.
    pub fn arrived(&mut self, now: Duration, h: Header, payload: Vec<u8>) -> Result<(), Fault> {
        (self.heard, self.now) = (now, now);
        self.stats.received += (HEADER + payload.len()) as u64;
        if !h.kind.numbered() {
            return self.unnumbered(now, h);
        }
        if h.number != self.received + 1 {
            return Err(Fault::Gap);
        }
        if self.replay.held() + self.urgent.len() * HEADER > 2 * self.limits.most_replay {
            return Err(Fault::Unacknowledged);
        }
        let length = HEADER + payload.len();
        match h.kind {
            Kind::Open => self.opened(h, payload)?,
            Kind::Data => self.data(now, h.stream, payload)?,
            Kind::End => self.ended(h.stream)?,
            Kind::Reset => self.broken_off(h.stream, u16::from_be_bytes([payload[0], payload[1]]))?,
            Kind::Credit => {
                self.credited(h.stream, u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]))?
            }
            Kind::Message => self.message(payload)?,
            Kind::Ack | Kind::Ping | Kind::Pong | Kind::Hello => return Err(Fault::Kind),
        }
        self.received = h.number;
        self.untold_bytes += length;
        // Small frames come from a sender that thinks the line thin, and waits for word before it sends more.
        let often = if length <= HEADER + THIN_PAYLOAD { ACK_BYTES / 4 } else { ACK_BYTES };
        if self.untold_bytes >= often {
            self.ack_now = true;
        } else {
            self.ack_at.get_or_insert(now + ACK_WITHIN);
        }
        Ok(())
    }

    fn unnumbered(&mut self, now: Duration, h: Header) -> Result<(), Fault> {
        match h.kind {
            Kind::Ack => {
                let spare = &mut self.spare;
                let unused = |buffer| keep(spare, buffer);
                if let Some(left) = self.replay.ack(h.number, now, &mut self.estimate, unused)? {
                    self.window.acked(now, left, &self.estimate);
                }
            }
            Kind::Ping => {
                // One answer on the way is enough; older pings need none.
                if self.raw.len() < MESSAGES {
                    self.raw(Kind::Pong, h.number);
                }
            }
            Kind::Pong => {
                let sent = Duration::from_micros(h.number);
                if self.pinged.take_if(|p| p.as_micros() == sent.as_micros()).is_some() {
                    self.estimate.round_trip(now, now.saturating_sub(sent));
                }
            }
            _ => return Err(Fault::Kind),
        }
        Ok(())
    }

    fn opened(&mut self, h: Header, header: Vec<u8>) -> Result<(), Fault> {
        if self.role != Role::Gateway {
            return Err(Fault::Direction);
        }
        let classes = (Class::of_rank(h.class >> 4), Class::of_rank(h.class & 15));
        let (Some(_), Some(ours)) = classes else { return Err(Fault::Class) };
        if h.stream <= self.last_stream {
            return Err(Fault::ClosedStream);
        }
        if h.stream != self.last_stream + 1 {
            return Err(Fault::StreamTooHigh);
        }
        let open = self.streams.values().filter(|s| !s.they_ended).count();
        if open >= self.limits.streams || self.streams.len() >= 4 * self.limits.streams {
            return Err(Fault::TooManyStreams);
        }
        self.last_stream = h.stream;
        self.streams.insert(h.stream, Stream::new(ours));
        self.events.push_back(Event::Opened(h.stream, header));
        Ok(())
    }

    /// A stream that may still get data.
    fn receiving(&mut self, id: u32) -> Result<&mut Stream, Fault> {
        if id == 0 || id > self.last_stream {
            return Err(Fault::UnknownStream);
        }
        self.streams.get_mut(&id).filter(|s| !s.they_ended).ok_or(Fault::ClosedStream)
    }

    fn data(&mut self, now: Duration, id: u32, payload: Vec<u8>) -> Result<(), Fault> {
        let stream = self.receiving(id)?;
        // After a reset from here data may still be under way: it is taken, and given back, unread.
        let keep = stream.reset.is_none() && !stream.dropped;
        stream.arrived.push(payload, keep)?;
        if keep {
            self.events.push_back(Event::Readable(id));
        } else {
            self.give_back(now, id);
        }
        Ok(())
    }

    fn ended(&mut self, id: u32) -> Result<(), Fault> {
        self.receiving(id)?.they_ended = true;
        self.events.push_back(Event::Readable(id));
        self.forget(id);
        Ok(())
    }

    fn broken_off(&mut self, id: u32, code: u16) -> Result<(), Fault> {
        if id == 0 || id > self.last_stream {
            return Err(Fault::UnknownStream);
        }
        // It may have crossed our own end; then there is nothing left to break off.
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let ours = stream.sending == Sending::Ended;
        stream.they_ended = true;
        if ours {
            // Nothing to answer: they know that we have ended.
            stream.reset.get_or_insert(code);
            stream.arrived.discard();
        } else {
            self.reset(id, code);
        }
        self.events.extend([Event::Readable(id), Event::Writable(id)]);
        self.forget(id);
        Ok(())
    }

    fn credited(&mut self, id: u32, more: u32) -> Result<(), Fault> {
        if id == 0 || id > self.last_stream {
            return Err(Fault::UnknownStream);
        }
        // Credit for a stream that just ended here was honestly meant.
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.credited(more)?;
        self.reschedule(id);
        Ok(())
    }

    fn message(&mut self, payload: Vec<u8>) -> Result<(), Fault> {
        if self.unread_messages >= MESSAGES {
            return Err(Fault::MessageFlood);
        }
        self.unread_messages += 1;
        self.events.push_back(Event::Message(payload));
        Ok(())
    }
}
