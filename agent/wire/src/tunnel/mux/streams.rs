//! Streams as their users see them: opened, written, read, ended and broken off.

use std::time::Duration;

use super::{
    Class, Kind, MESSAGES, Mux, OPEN_LIMIT, Role, Sending, Stream, StreamError, THIN_PAYLOAD, WIDE_PAYLOAD, frame,
};

impl Mux {
    /// Opens a stream. `ours` is the class of what is sent from here, `theirs` of what comes back.
    ///
    /// # Errors
    /// [`StreamError::Full`], [`StreamError::TooLong`], or [`StreamError::Gone`] on the gateway's side.
    pub fn open(&mut self, ours: Class, theirs: Class, header: &[u8]) -> Result<u32, StreamError> {
        if self.role != Role::Agent {
            return Err(StreamError::Gone);
        }
        if header.len() > OPEN_LIMIT {
            return Err(StreamError::TooLong);
        }
        let open = self.streams.values().filter(|s| s.sending != Sending::Ended).count();
        if open >= self.limits.streams || self.streams.len() >= 2 * self.limits.streams {
            return Err(StreamError::Full);
        }
        self.last_stream += 1;
        let id = self.last_stream;
        let class = (ours.rank() << 4 | theirs.rank()) as u8;
        self.urgent.push_back(frame(Kind::Open, class, id, 0, header));
        self.streams.insert(id, Stream::new(ours));
        Ok(id)
    }

    /// Sends a control message.
    ///
    /// # Errors
    /// [`StreamError::Full`] or [`StreamError::TooLong`].
    pub fn send_message(&mut self, message: &[u8]) -> Result<(), StreamError> {
        if message.is_empty() || message.len() > WIDE_PAYLOAD {
            return Err(StreamError::TooLong);
        }
        if self.urgent.len() >= 4 * MESSAGES {
            return Err(StreamError::Full);
        }
        self.urgent.push_back(frame(Kind::Message, 0, 0, 0, message));
        Ok(())
    }

    /// How much a stream takes now.
    pub(super) fn room(&self, stream: &Stream) -> usize {
        let most = if self.estimate.thin() { 4 * THIN_PAYLOAD } else { 16 * WIDE_PAYLOAD };
        most.saturating_sub(stream.waiting())
    }

    /// Gives data to a stream; how much it took. 0: wait for [`Event::Writable`].
    ///
    /// # Errors
    /// If it was broken off, or ended from here.
    pub fn write(&mut self, id: u32, data: &[u8]) -> Result<usize, StreamError> {
        let most = if self.estimate.thin() { THIN_PAYLOAD } else { WIDE_PAYLOAD };
        let stream = self.streams.get(&id).ok_or(StreamError::Gone)?;
        if let Some(code) = stream.reset {
            return Err(StreamError::Reset(code));
        }
        if stream.sending != Sending::Open {
            return Err(StreamError::Gone);
        }
        let room = self.room(stream);
        let Some(stream) = self.streams.get_mut(&id) else { return Err(StreamError::Gone) };
        let taken = stream.push(data, room, most, &mut self.spare);
        self.reschedule(id);
        Ok(taken)
    }

    /// Whether all data of a stream was handed on.
    #[must_use]
    pub fn flushed(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(|s| s.waiting() == 0)
    }

    /// No more data from here.
    pub fn end(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.sending == Sending::Open
        {
            stream.sending = Sending::Ending;
            self.reschedule(id);
        }
    }

    /// The next bytes of a stream: `None` if there are none yet, an empty slice at its end.
    ///
    /// # Errors
    /// If it was broken off.
    pub fn peek(&self, id: u32) -> Result<Option<&[u8]>, StreamError> {
        self.streams.get(&id).ok_or(StreamError::Gone)?.peek()
    }

    /// Like [`Mux::peek`], but hands the bytes over.
    ///
    /// # Errors
    /// If it was broken off.
    pub fn take(&mut self, now: Duration, id: u32) -> Result<Option<Vec<u8>>, StreamError> {
        let stream = self.streams.get_mut(&id).ok_or(StreamError::Gone)?;
        if stream.peek()?.is_none() {
            return Ok(None);
        }
        let piece = stream.arrived.take();
        self.give_back(now, id);
        Ok(Some(piece))
    }

    /// Whether there is something to read at once.
    #[must_use]
    pub fn more(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|s| s.reset.is_none() && !s.arrived.peek().is_empty())
    }

    /// So many of them were read.
    pub fn consume(&mut self, now: Duration, id: u32, n: usize) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.arrived.consume(n);
            self.give_back(now, id);
        }
    }

    pub(super) fn give_back(&mut self, now: Duration, id: u32) {
        let round_trip = self.estimate.least();
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.they_ended
            && let Some(more) = stream.arrived.give_back(now, round_trip)
        {
            self.urgent.push_back(frame(Kind::Credit, 0, id, 0, &more.to_be_bytes()));
        }
    }

    /// Nobody here holds the stream any more. What was not ended properly is broken off.
    pub fn drop_stream(&mut self, id: u32, code: u16) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.dropped = true;
        stream.arrived.discard();
        // What was written before an orderly end still goes out; the end then says whether more is wanted.
        if stream.sending != Sending::Ending && !(stream.sending == Sending::Ended && stream.they_ended) {
            self.reset(id, code);
        }
        self.forget(id);
    }

    /// Breaks a stream off both ways.
    pub fn reset(&mut self, id: u32, code: u16) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let first = stream.reset.is_none();
        stream.reset.get_or_insert(code);
        stream.discard();
        stream.arrived.discard();
        if first && !(stream.sending == Sending::Ended && stream.they_ended) {
            stream.sending = Sending::Ended;
            self.urgent.push_back(frame(Kind::Reset, 0, id, 0, &code.to_be_bytes()));
        }
        self.reschedule(id);
    }

    pub(super) fn forget(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(Stream::over) {
            self.streams.remove(&id);
        }
    }

    /// Puts a stream into the schedule or takes it out.
    pub(super) fn reschedule(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let wants = stream.next_size().is_some();
        if wants != stream.scheduled {
            stream.scheduled = wants;
            if wants {
                self.schedule.add(stream.class, id);
            } else {
                self.schedule.remove(stream.class, id);
            }
        }
    }
}
