//! Support asks for what interrupts work, and the officer is asked on the screen: the agent and the desk as they are
//! installed, a kiosk browser whose page is read, and the real controller.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tram_tests::device::{Console, Device};
use tram_tests::kiosk::Desk;
use tram_tests::screen::wait;
use tram_tests::world::World;

struct Office {
    world: World,
    support: Console,
    device: Device,
    id: String,
    password: String,
}

impl Office {
    /// A desktop that runs, an officer, and a computer that is linked.
    fn open() -> Result<Self> {
        let mut world = World::new()?;
        world.small_image()?;
        world.sim_host("")?;
        world.start()?;
        world.listening()?;
        let pool = ["--name", "p", "--site", "00004", "--image", "small", "--size", "1", "--memory-mib", "128"];
        world.cli(&[&["admin", "pool", "create"][..], &pool].concat())?;
        world.settled(1, "running")?;
        let support = Console::sign_in(&world, "support")?;
        let (_, password) = Console::officer(&world, "hoa")?;
        let (device, id) = Device::enrolled(&world)?;
        let mut office = Self { world, support, device, id, password };
        office.link()?;
        Ok(office)
    }

    /// Starts the agent, and waits until the controller hears of it.
    fn link(&mut self) -> Result<()> {
        self.device.start()?;
        let device = &self.device;
        self.world.until("it is linked", |_| Ok(device.link()?["state"] == "up"))
    }

    /// As soon as the computer is taken for linked.
    fn ask(&mut self, why: &str) -> Result<String> {
        let body = json!({"action": "reset_viewer", "arguments": {}, "reason": why});
        let (support, path) = (&self.support, format!("/api/v1/endpoints/{}/diagnoses", self.id));
        let mut asked = Value::Null;
        self.world.until("it may be asked", |_| {
            let (status, d) = support.post(&path, &body)?;
            ensure!(status == 200 || d["code"] == "Q-104", "{status} {d}");
            asked = d;
            Ok(status == 200)
        })?;
        Ok(asked["id"].as_str().context("an id")?.to_owned())
    }

    fn until(&mut self, id: &str, state: &str) -> Result<Value> {
        let mut last = Value::Null;
        let (support, path) = (&self.support, format!("/api/v1/diagnoses/{id}"));
        let seen = self.world.until(state, |_| {
            last = support.get(&path)?.1;
            Ok(last["state"] == state)
        });
        seen.with_context(|| format!("{last}\n{}", self.device.log()))?;
        Ok(last)
    }
}

/// Keys on the page, one after the other.
fn keys(desk: &Desk, all: &[&str]) -> Result<()> {
    all.iter().try_for_each(|key| desk.screen.xdotool(&["key", key]))
}

/// Waits for the question on the page, in the officer's language: who, what, why, and how long they have.
fn asked(desk: &Desk, why: &str) -> Result<()> {
    desk.until_reads("#order-title", "support (bộ phận hỗ trợ) xin phép: đặt lại chương trình xem máy ảo")?;
    desk.until_front("Tram desk")?;
    let said = desk.reads("#order")?;
    for words in
        [&format!("Lý do: {why}"), "giây để trả lời", "Không trả lời là không đồng ý", "Đồng ý", "Không đồng ý"]
    {
        ensure!(said.contains(words), "{words}: {said}");
    }
    Ok(())
}

/// Waits until nothing is asked any more.
fn gone(desk: &Desk) -> Result<()> {
    wait("the question's end", || Ok(desk.reads("#order")?.is_empty().then_some(())))
}

/// Asks until the officer's yes came in time: a busy machine may be too slow for half a minute.
fn agreed(office: &mut Office, desk: &mut Desk, why: &str) -> Result<Value> {
    for _ in 0..4 {
        let id = office.ask(why)?;
        asked(desk, why)?;
        keys(desk, &["Tab", "Return"])?;
        let ended = office.until(&id, "ended")?;
        if ended["code"] != "declined" {
            return Ok(ended);
        }
    }
    anyhow::bail!("four times too slow")
}

#[test]
fn the_officer_is_asked_on_the_screen_and_the_viewer_begins_anew() -> Result<()> {
    let mut office = Office::open()?;
    let folder = tempfile::tempdir()?;
    let mut desk = Desk::start_readable("diagnosis", &office.device.state(), folder.path())?;
    desk.ready()?;

    // Before anybody signed in: the sentence has the keyboard, so that no button is pressed by who types.
    let id = office.ask("thay màn hình")?;
    asked(&desk, "thay màn hình")?;
    desk.picture("asked-at-sign-in")?;
    keys(&desk, &["Tab", "Tab", "Return"])?;
    let no = office.until(&id, "ended")?;
    assert_eq!((&no["outcome"], &no["code"]), (&json!("refused"), &json!("declined")), "{no}");
    gone(&desk)?;

    // Who was about to sign in goes on typing. At work the question comes before the desktop; after a yes the viewer
    // ends, and another one is there without a key pressed.
    desk.sign_in(&["hoa", &office.password])?;
    desk.until("desktop")?;
    desk.until_front("TigerVNC")?;
    desk.picture_of_desktop("at-work")?;
    let viewer = desk.viewer().context("a viewer")?;
    let yes = agreed(&mut office, &mut desk, "màn hình đen")?;
    assert_eq!((&yes["outcome"], &yes["steps"][0]["text_code"]), (&json!("done"), &json!("done")), "{yes}");
    wait("another viewer", || Ok(desk.viewer().filter(|v| *v != viewer)))?;
    gone(&desk)?;
    desk.until_front("TigerVNC")?;
    desk.picture_of_desktop("viewer-anew")?;
    let viewer = desk.viewer();

    // Escape is a no; the desktop is before the page again, and the same viewer goes on.
    let id = office.ask("lần nữa")?;
    asked(&desk, "lần nữa")?;
    desk.picture("asked-at-work")?;
    keys(&desk, &["Escape"])?;
    assert_eq!(office.until(&id, "ended")?["code"], "declined");
    gone(&desk)?;
    desk.until_front("TigerVNC")?;
    assert_eq!(desk.viewer(), viewer);

    // Nobody answers: that is a no, too, and the question goes.
    office.device.stop()?;
    office.device.configure("[diagnosis]\nanswer_s = 2\n")?;
    office.link()?;
    let id = office.ask("không ai trả lời")?;
    assert_eq!(office.until(&id, "ended")?["code"], "declined");
    gone(&desk)?;
    desk.until_front("TigerVNC")?;
    assert_eq!(desk.viewer(), viewer);
    Ok(())
}
