//! The bar's window on X.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::randr::ConnectionExt as _;
use x11rb::protocol::xinput::{ConnectionExt as _, Device, EventMask as XiMask, XIEventMask};
use x11rb::protocol::xproto::{
    ConfigureWindowAux, ConnectionExt as _, CreateGCAux, CreateWindowAux, EventMask, ImageFormat, ImageOrder, Screen,
    StackMode, Visibility, WindowClass,
};
use x11rb::rust_connection::RustConnection;

use super::Words;
use super::paint::{self, Bar, Fonts};

/// Between two looks at what X and the agent say.
const LOOK: Duration = Duration::from_millis(50);
/// The bar is raised this often even if nobody says that it is covered.
const RAISE: Duration = Duration::from_secs(1);
/// One piece of the picture: within the smallest limit a server may have.
const PIECE: usize = 128 * 1024;
/// `Ctrl+Alt+X`, in keysyms.
const X: u32 = 0x78;
const CONTROL: [u32; 2] = [0xffe3, 0xffe4];
const ALT: [u32; 2] = [0xffe9, 0xffea];
/// The window's title, for whoever looks for it.
pub(super) const TITLE: &[u8] = b"Tram mark";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Whether there is a screen that can show the bar.
pub(super) fn possible() -> bool {
    x11rb::connect(None).is_ok_and(|(x, n)| fits(&x, n))
}

/// 32 bits a pixel, the least first: every X server of the last twenty years.
fn fits(x: &RustConnection, n: usize) -> bool {
    let setup = x.setup();
    let depth = setup.roots.get(n).map(|s| s.root_depth);
    let deep = setup.pixmap_formats.iter().any(|f| Some(f.depth) == depth && f.depth >= 24 && f.bits_per_pixel == 32);
    deep && setup.image_byte_order == ImageOrder::LSB_FIRST
}

/// Shows what is said until nobody can say any more, and tells when the officer wants it stopped.
pub(super) fn run(words: &Receiver<Words>, stop: &Sender<()>) -> Result<(), Failure> {
    let fonts = Fonts::installed().ok_or("no font that is known here is installed")?;
    let (x, n) = x11rb::connect(None)?;
    if !fits(&x, n) {
        return Err("the screen has too few colours".into());
    }
    let screen = &x.setup().roots[n];
    let mut keys = Keys::watch(&x, screen)?;
    let mut window = Window::new(&x, screen)?;
    let mut raised = Instant::now();
    loop {
        match words.recv_timeout(LOOK) {
            Ok(words) => window.show(paint::draw(&fonts, &words, window.size()))?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let mut covered = raised.elapsed() >= RAISE;
        while let Some(event) = x.poll_for_event()? {
            let pressed = match event {
                // Raw, too: a full-screen viewer grabs the mouse with the keyboard.
                Event::XinputRawButtonPress(b) if b.detail == 1 => window.clicked()?,
                Event::XinputRawKeyPress(k) => keys.pressed(k.detail),
                Event::XinputRawKeyRelease(k) => {
                    keys.released(k.detail);
                    false
                }
                Event::VisibilityNotify(v) => {
                    covered |= v.state != Visibility::UNOBSCURED;
                    false
                }
                _ => false,
            };
            if pressed {
                // A full queue holds the same wish already.
                let _ = stop.try_send(());
            }
        }
        if covered {
            raised = Instant::now();
            window.raise()?;
        }
    }
}

/// The monitor the bar is on: the primary one, where there are several.
fn monitor(x: &RustConnection, screen: &Screen) -> [i16; 4] {
    let all = || -> Result<_, Failure> { Ok(x.randr_get_monitors(screen.root, true)?.reply()?.monitors) };
    let monitors = all().unwrap_or_default();
    let chosen = monitors.iter().find(|m| m.primary).or(monitors.first());
    match chosen {
        Some(m) => [m.x, m.y, m.width as i16, m.height as i16],
        None => [0, 0, screen.width_in_pixels as i16, screen.height_in_pixels as i16],
    }
}

struct Window<'a> {
    x: &'a RustConnection,
    screen: &'a Screen,
    id: u32,
    gc: u32,
    bar: Option<Bar>,
    /// At the lower edge: the officer moved it out of the way.
    low: bool,
}

impl<'a> Window<'a> {
    fn new(x: &'a RustConnection, screen: &'a Screen) -> Result<Self, Failure> {
        let (id, gc) = (x.generate_id()?, x.generate_id()?);
        let events = EventMask::VISIBILITY_CHANGE;
        let how = CreateWindowAux::new().override_redirect(1).event_mask(events);
        let (depth, visual) = (x11rb::COPY_DEPTH_FROM_PARENT, x11rb::COPY_FROM_PARENT);
        x.create_window(depth, id, screen.root, 0, 0, 1, 1, 0, WindowClass::INPUT_OUTPUT, visual, &how)?;
        x.create_gc(gc, id, &CreateGCAux::new())?;
        use x11rb::protocol::xproto::{AtomEnum, PropMode};
        x11rb::wrapper::ConnectionExt::change_property8(
            x,
            PropMode::REPLACE,
            id,
            AtomEnum::WM_NAME,
            AtomEnum::STRING,
            TITLE,
        )?;
        Ok(Self { x, screen, id, gc, bar: None, low: false })
    }

    fn size(&self) -> (u16, u16) {
        let [_, _, w, h] = monitor(self.x, self.screen);
        (w as u16, h as u16)
    }

    fn show(&mut self, bar: Bar) -> Result<(), Failure> {
        // The picture is the window's ground: the server itself draws it wherever it was covered.
        let (x, pixmap) = (self.x, self.x.generate_id()?);
        x.create_pixmap(self.screen.root_depth, pixmap, self.id, bar.width, bar.height)?;
        let row = usize::from(bar.width) * 4;
        let rows = (PIECE / row).max(1);
        for (n, piece) in bar.pixels.chunks(rows * row).enumerate() {
            let (top, height) = ((n * rows) as i16, (piece.len() / row) as u16);
            let depth = self.screen.root_depth;
            x.put_image(ImageFormat::Z_PIXMAP, pixmap, self.gc, bar.width, height, 0, top, 0, depth, piece)?;
        }
        use x11rb::protocol::xproto::ChangeWindowAttributesAux;
        x.change_window_attributes(self.id, &ChangeWindowAttributesAux::new().background_pixmap(pixmap))?;
        self.bar = Some(bar);
        self.place()?;
        x.map_window(self.id)?;
        x.clear_area(false, self.id, 0, 0, 0, 0)?;
        x.free_pixmap(pixmap)?;
        Ok(x.flush()?)
    }

    fn place(&self) -> Result<(), Failure> {
        let Some(bar) = &self.bar else { return Ok(()) };
        let [left, top, w, h] = monitor(self.x, self.screen);
        let x = i32::from(left) + (i32::from(w) - i32::from(bar.width)).max(0) / 2;
        let down = if self.low { (i32::from(h) - i32::from(bar.height)).max(0) } else { 0 };
        let place = ConfigureWindowAux::new()
            .x(x)
            .y(i32::from(top) + down)
            .width(u32::from(bar.width))
            .height(u32::from(bar.height))
            .stack_mode(StackMode::ABOVE);
        self.x.configure_window(self.id, &place)?;
        Ok(self.x.flush()?)
    }

    /// Out of the way of what lies below, to the other edge.
    fn move_away(&mut self) -> Result<(), Failure> {
        self.low = !self.low;
        self.place()
    }

    fn raise(&self) -> Result<(), Failure> {
        self.x.configure_window(self.id, &ConfigureWindowAux::new().stack_mode(StackMode::ABOVE))?;
        Ok(self.x.flush()?)
    }

    /// Somebody clicked somewhere: whether that was the button.
    fn clicked(&mut self) -> Result<bool, Failure> {
        let at = self.x.query_pointer(self.id)?.reply()?;
        let Some(bar) = &self.bar else { return Ok(false) };
        let inside =
            at.same_screen && (0..bar.width as i16).contains(&at.win_x) && (0..bar.height as i16).contains(&at.win_y);
        let button = bar.is_button(at.win_x, at.win_y);
        if inside && !button {
            self.move_away()?;
        }
        Ok(inside && button)
    }
}

/// Keycodes of the keyboard that is plugged in.
struct Keys {
    x: Vec<u8>,
    control: Vec<u8>,
    alt: Vec<u8>,
    /// Those that are down: by the events, as a quick hand is gone before anybody could ask.
    down: HashSet<u8>,
}

impl Keys {
    /// Watches every keyboard. Raw events come whoever has the keyboard, or grabbed it (XInput 2.1).
    fn watch(x: &RustConnection, screen: &Screen) -> Result<Self, Failure> {
        let version = x.xinput_xi_query_version(2, 2)?.reply()?;
        if (version.major_version, version.minor_version) < (2, 1) {
            return Err("the X server knows no raw keys".into());
        }
        let mask = XiMask {
            deviceid: Device::ALL_MASTER.into(),
            mask: vec![XIEventMask::RAW_KEY_PRESS | XIEventMask::RAW_KEY_RELEASE | XIEventMask::RAW_BUTTON_PRESS],
        };
        x.xinput_xi_select_events(screen.root, &[mask])?.check()?;
        let (least, most) = (x.setup().min_keycode, x.setup().max_keycode);
        let map = x.get_keyboard_mapping(least, most - least + 1)?.reply()?;
        let each = usize::from(map.keysyms_per_keycode).max(1);
        let codes = |wanted: &[u32]| {
            let has = |syms: &&[u32]| syms.iter().any(|s| wanted.contains(s));
            let rows = map.keysyms.chunks(each).zip(least..=most);
            rows.filter(|(syms, _)| has(syms)).map(|(_, code)| code).collect::<Vec<u8>>()
        };
        let bits = x.query_keymap()?.reply()?.keys;
        let down = (least..=most).filter(|c| bits[usize::from(c / 8)] & (1 << (c % 8)) != 0).collect();
        Ok(Self { x: codes(&[X]), control: codes(&CONTROL), alt: codes(&ALT), down })
    }

    /// Whether this key, with those that are held down, means *stop*.
    fn pressed(&mut self, code: u32) -> bool {
        let Ok(code) = u8::try_from(code) else { return false };
        self.down.insert(code);
        let held = |codes: &[u8]| codes.iter().any(|c| self.down.contains(c));
        self.x.contains(&code) && held(&self.control) && held(&self.alt)
    }

    fn released(&mut self, code: u32) {
        if let Ok(code) = u8::try_from(code) {
            self.down.remove(&code);
        }
    }
}
