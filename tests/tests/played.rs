//! The table of causes, played by real agents: each in a network of its own, behind its office's router, a line and a
//! carrier, with a whole controller in the data centre. What breaks, breaks for real; what is told must name the
//! cause, and nothing else may be blamed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tram_tests::device::{Console, Device};
use tram_tests::province::{self, CENTRE, Names, PORTAL, Province, RESOLVER, Server};
use tram_tests::world::World;

/// The rules are the usual ones; only beats, reports and looks come faster.
const FAST: [(&str, &str); 7] = [
    ("TRAM_HEALTH_OPENS", "00:00"),
    ("TRAM_HEALTH_CLOSES", "24:00"),
    ("TRAM_HEALTH_DAYS", "mon,tue,wed,thu,fri,sat,sun"),
    ("TRAM_HEALTH_BEAT_SECONDS", "2"),
    ("TRAM_HEALTH_REPORT_SECONDS", "3"),
    ("TRAM_HEALTH_KEYFRAME_SECONDS", "60"),
    ("TRAM_HEALTH_LOOK_SECONDS", "3"),
];
/// Generous: the machine is shared, and probes of services come every 30 s.
const PATIENCE: Duration = Duration::from_secs(240);
const CODES: [&str; 9] = ["00001", "00004", "00006", "00007", "00008", "00013", "00016", "00019", "00022"];

struct Computer {
    device: Device,
    id: String,
}

struct Played {
    offices: Vec<Vec<Computer>>,
    console: Console,
    world: World,
    province: Province,
}

type Blame = (String, String);

fn blame(cause: &str, scope: &str) -> Blame {
    (cause.to_owned(), scope.to_owned())
}

impl Played {
    /// Offices by the number of their carrier, each with so many computers, all at work.
    fn new(carriers: &[&str], offices: &[usize], computers: usize, env: &[(&str, &str)]) -> Result<Self> {
        let mut province = Province::new(carriers.len())?;
        let mut world = World::new()?;
        world.agents = (CENTRE, 8444).into();
        world.start_with(&[&FAST[..], env].concat())?;
        world.listening()?;
        let console = Console::sign_in(&world, "operator")?;
        for (s, carrier) in offices.iter().enumerate() {
            province.office(*carrier, computers)?;
            let facts = json!({"carrier": carriers[*carrier]});
            let (status, body) = console.put(&format!("/api/v1/site-facts/{}", CODES[s]), &facts)?;
            ensure!(status == 200, "{status} {body}");
        }
        Ok(Self { offices: Vec::new(), console, world, province })
    }

    /// Enrols and starts all computers of all offices, after `prepare` was done to each.
    fn staff(
        &mut self,
        offices: usize,
        computers: usize,
        prepare: impl Fn(usize, &Device) -> Result<()> + Sync,
    ) -> Result<()> {
        let (world, province, prepare) = (&self.world, &self.province, &prepare);
        let office = |s: usize| -> Result<Vec<Computer>> {
            let count = computers.to_string();
            let made = world.json(&["admin", "endpoint", "token", "--site", CODES[s], "--count", &count, "--json"])?;
            let token = made["token"].as_str().context("no token")?;
            (0..computers)
                .map(|e| {
                    let resolver = if s == LIAR { Ipv4Addr::new(10, 93, 6, 1) } else { RESOLVER };
                    let mut device = province.device(s, e, resolver)?;
                    prepare(s, &device)?;
                    let done = device.enrol(world, token)?;
                    ensure!(done.status.success(), "enrolment: {}", String::from_utf8_lossy(&done.stderr));
                    let id = device.identity()?["endpoint_id"].as_str().context("no id")?.to_owned();
                    device.start()?;
                    Ok(Computer { device, id })
                })
                .collect()
        };
        self.offices = std::thread::scope(|t| {
            let all: Vec<_> = (0..offices).map(|s| t.spawn(move || office(s))).collect();
            all.into_iter().map(|h| h.join().map_err(|_| anyhow::anyhow!("a thread fell over"))?).collect::<Result<_>>()
        })?;
        Ok(())
    }

    fn site(&self, cause: &str, s: usize) -> Blame {
        blame(cause, &format!("site:{}", CODES[s]))
    }

    fn one(&self, cause: &str, s: usize, e: usize) -> Blame {
        blame(cause, &format!("endpoint:{}", self.offices[s][e].id))
    }

    fn health(&self, s: usize, e: usize) -> Result<Value> {
        Ok(self.console.get(&format!("/api/v1/endpoints/{}/health", self.offices[s][e].id))?.1)
    }

    fn incidents(&self, query: &str) -> Result<Vec<Value>> {
        let (status, body) = self.console.get(&format!("/api/v1/incidents?{query}"))?;
        ensure!(status == 200, "{status} {body}");
        Ok(body["items"].as_array().context("items")?.clone())
    }

    /// What is told now. All these computers are this one machine: what their checks say of its processor and its
    /// disks is nobody's fault here.
    fn told(&self) -> Result<BTreeSet<Blame>> {
        let own = |i: &Value| i["cause"] == "computer" && !i["evidence"].to_string().contains("\"clock\"");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let open = self.incidents("open=true&limit=200")?;
        Ok(open.iter().filter(|i| !own(i)).map(|i| (text(&i["cause"]), text(&i["scope"]))).collect())
    }

    fn wait(&self, what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !so()? {
            if Instant::now() > until {
                let all: Vec<_> = self.incidents("limit=200")?.iter().map(brief).collect();
                let log: String = self.world.log().lines().rev().take(20).collect::<Vec<_>>().join("\n");
                anyhow::bail!("waited in vain: {what}\n{}\n{log}", all.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    /// Waits until exactly this is told, says when each was, and that it stays so for some looks.
    fn exactly(&self, what: &str, wanted: &[Blame]) -> Result<()> {
        let (began, wanted): (_, BTreeSet<Blame>) = (Instant::now(), wanted.iter().cloned().collect());
        let mut seen = BTreeSet::new();
        let seen_now = std::cell::RefCell::new(&mut seen);
        self.wait(&format!("{what}: {wanted:?}"), || {
            let told = self.told()?;
            for b in &told {
                if seen_now.borrow_mut().insert(b.clone()) {
                    eprintln!("{what}: {:>5.1} s {} {}", began.elapsed().as_secs_f32(), b.0, b.1);
                }
            }
            Ok(told == wanted)
        })?;
        // Two looks and more.
        std::thread::sleep(Duration::from_secs(7));
        let after = self.told()?;
        ensure!(after == wanted, "{what}: it did not stay so: {after:?}");
        Ok(())
    }

    /// Everybody was heard, and each office's prober measured and probed.
    fn ready(&self, probes: usize) -> Result<()> {
        self.wait("all measure", || {
            for s in 0..self.offices.len() {
                let mut measured = false;
                for e in 0..self.offices[s].len() {
                    let h = self.health(s, e)?;
                    let services = h["probes"].as_array().into_iter().flatten();
                    let good =
                        services.filter(|p| p["kind"] != "icmp" && p["name"] != "controller" && p["state"] == "ok");
                    measured |= h["gauges"]["controller_loss"].is_number() && good.count() >= probes;
                }
                if !measured {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    fn all_heard(&self) -> Result<()> {
        self.wait("all are heard", || {
            let all = self.world.json(&["admin", "endpoint", "list", "--json"])?;
            Ok(all.as_array().is_some_and(|a| a.iter().all(|e| e["state"] == "online")))
        })
    }

    /// What was told at any time and is over, without what was found to be part of something else.
    fn ever(&self) -> Result<BTreeSet<Blame>> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let all = self.incidents("limit=200")?;
        let own = all.iter().filter(|i| i["merged_into"].is_null() && i["cause"] != "computer");
        Ok(own.map(|i| (text(&i["cause"]), text(&i["scope"]))).collect())
    }
}

fn brief(i: &Value) -> String {
    format!(
        "{} {} open={} merged={} {} {}",
        i["cause"], i["scope"], i["open"], i["merged_into"], i["confidence"], i["evidence"]
    )
}

/// What a printer queue tells of itself, as CUPS says it over IPP.
fn cups(state: i32, reason: &str) -> Vec<u8> {
    let mut b = vec![1, 1, 0, 0, 0, 0, 0, 1, 4];
    let attributes: [(u8, &str, Vec<u8>); 3] = [
        (0x42, "printer-name", b"mot-cua".to_vec()),
        (0x23, "printer-state", state.to_be_bytes().to_vec()),
        (0x44, "printer-state-reasons", reason.as_bytes().to_vec()),
    ];
    for (tag, name, value) in attributes {
        b.push(tag);
        b.extend(u16::try_from(name.len()).unwrap_or(0).to_be_bytes());
        b.extend(name.as_bytes());
        b.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        b.extend(value);
    }
    b.push(3);
    [format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", b.len()).as_bytes(), &b].concat()
}

const LINE: usize = 0;
const POWER: usize = 1;
const LOSSY: usize = 2;
const CABLE: usize = 3;
const CRASH: usize = 4;
const WALL: usize = 5;
const LIAR: usize = 6;
const CAPTIVE: usize = 7;
const PRINTER: usize = 8;

fn in_a_network(play: fn() -> Result<()>) -> Result<()> {
    if let Err(why) = province::possible() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    // A thread of its own: its network becomes the data centre's.
    std::thread::spawn(play).join().map_err(|_| anyhow::anyhow!("the play fell over"))?
}

#[test]
fn each_office_has_a_trouble_of_its_own_and_each_is_named() -> Result<()> {
    in_a_network(|| {
        let offices = [0, 1, 0, 1, 0, 1, 0, 1, 0];
        let mut p = Played::new(&["VNPT", "Viettel"], &offices, 2, &[])?;
        let right = Names::start(RESOLVER, CENTRE, CENTRE)?;
        let liar = p.province.resolver(LIAR, CENTRE, Ipv4Addr::new(10, 9, 9, 9))?;
        let egov = Server::start((CENTRE, 7001).into(), "")?;
        let _portal = Server::start((PORTAL, 7002).into(), "")?;
        let _known = Server::start((CENTRE, 80).into(), "HTTP/1.1 204 No Content\r\n\r\n")?;
        for service in [
            json!({"name": "egov", "kind": "tcp", "host": CENTRE, "port": 7001, "every_s": 30}),
            json!({"name": "portal", "kind": "tcp", "host": PORTAL, "port": 7002, "every_s": 30}),
            json!({"name": "names", "kind": "dns", "host": "vdi.hanoi.gov.vn", "expect": CENTRE, "every_s": 30}),
            json!({"name": "wifi", "kind": "captive", "host": CENTRE, "path": "/generate_204", "every_s": 30}),
        ] {
            let (status, body) = p.console.post("/api/v1/probes", &service)?;
            ensure!(status == 200, "{status} {body}");
        }
        let paper = p.province.at_computer(PRINTER, 0, || Server::saying("127.0.0.1:631".parse()?, cups(3, "none")))?;
        p.staff(offices.len(), 2, |s, device| {
            // One office's electricity is out already: its UPS carries it for a while.
            let said = if s == POWER { "OB DISCHRG" } else { "OL" };
            province::program(
                device,
                "upsc",
                "[ \"$1\" = -l ] && echo ups && exit\necho \"ups.status: $(cat \"$says\")\"",
            )?;
            province::says(device, "upsc", said)?;
            if s == CABLE {
                // A disk that hangs takes smartctl with it, and nothing else.
                province::program(device, "smartctl", "exec sleep 600")?;
            }
            province::program(device, "systemctl", "cat \"$says\"")?;
            province::says(device, "systemctl", "running")
        })?;
        p.ready(4)?;
        let battery = [p.one("peripheral", POWER, 0), p.one("peripheral", POWER, 1)];
        p.exactly("before", &battery)?;

        p.province.cut_line(LINE)?;
        for c in &mut p.offices[POWER] {
            c.device.kill9()?;
        }
        p.province.lose(LOSSY, 0.12)?;
        p.province.lose_at(CABLE, 1, 0.3)?;
        p.offices[CRASH][1].device.kill9()?;
        p.province.block(WALL, PORTAL)?;
        liar.lies.store(true, std::sync::atomic::Ordering::Relaxed);
        let captive = p.province.portal(CAPTIVE)?;
        p.offices[CAPTIVE][1].device.stop()?;
        drop(paper);
        let _empty = p
            .province
            .at_computer(PRINTER, 0, || Server::saying("127.0.0.1:631".parse()?, cups(5, "media-empty-error")))?;
        province::says(&p.offices[PRINTER][1].device, "systemctl", "stopping")?;
        p.offices[PRINTER][1].device.stop()?;
        drop(egov);
        let wanted = [
            p.site("site_line", LINE),
            p.site("site_power", POWER),
            p.site("line_degraded", LOSSY),
            p.one("lan", CABLE, 1),
            p.one("crashed", CRASH, 1),
            p.site("site_service", WALL),
            p.site("site_service", LIAR),
            p.site("site_service", CAPTIVE),
            p.one("crashed", CAPTIVE, 1),
            p.one("peripheral", PRINTER, 0),
            blame("service", "service:egov"),
        ];
        p.exactly("broken", &wanted)?;
        let open = p.incidents("open=true&limit=200")?;
        let of = |b: &Blame| open.iter().find(|i| i["cause"] == b.0.as_str() && i["scope"] == b.1.as_str());
        for (b, party, evidence) in [
            (&wanted[0], "carrier", "all_silent"),
            (&wanted[1], "site", "on_battery"),
            (&wanted[2], "carrier", "line_bad"),
            (&wanted[3], "site", "peers_good"),
            (&wanted[4], "support", "no_last_word"),
            (&wanted[5], "support", "works_elsewhere"),
            (&wanted[8], "support", "agent_stopped"),
            (&wanted[9], "site", "printer_paper"),
            (&wanted[10], "service_owner", "service_fails_at"),
        ] {
            let i = of(b).with_context(|| format!("{b:?}"))?;
            ensure!(i["party"] == party && i["evidence"].to_string().contains(evidence), "{}", brief(i));
        }

        let disks = p.health(CABLE, 0)?["inventory"]["disks"].clone();
        let hang = |d: &Value| d["kind"] != "disk" || d["facts"]["smart"] == "no_answer";
        ensure!(disks.as_array().is_none_or(|all| all.iter().all(hang)), "{disks}");

        let ever: BTreeSet<Blame> = wanted.iter().cloned().chain(battery).collect();
        let blamed = p.ever()?;
        ensure!(blamed.is_subset(&ever), "blamed besides: {:?}", blamed.difference(&ever).collect::<Vec<_>>());

        // All is mended; what the offices kept meanwhile tells more.
        p.province.mend_line(LINE)?;
        for (s, e) in [(POWER, 0), (POWER, 1), (CRASH, 1), (CAPTIVE, 1), (PRINTER, 1)] {
            let device = &mut p.offices[s][e].device;
            province::says(device, "upsc", "OL")?;
            province::says(device, "systemctl", "running")?;
            device.start()?;
        }
        for s in [LOSSY, CABLE, WALL, CAPTIVE] {
            p.province.mend_office(s, 2)?;
        }
        drop(captive);
        liar.lies.store(false, std::sync::atomic::Ordering::Relaxed);
        let _egov = Server::start((CENTRE, 7001).into(), "")?;
        p.exactly("mended", &[p.one("peripheral", PRINTER, 0)])?;
        let line = p.site("site_line", LINE);
        p.wait("the office's account makes it certain", || {
            let all = p.incidents("limit=200")?;
            let of_line = |i: &&Value| i["scope"] == line.1.as_str() && i["cause"] == line.0.as_str();
            let i = all.iter().find(of_line).context("the line's")?;
            Ok(i["confidence"] == "high" && i["evidence"].to_string().contains("backlog_router_answered"))
        })?;
        // Nobody was blamed for what was measured before they were back.
        let blamed = p.ever()?;
        ensure!(blamed.is_subset(&ever), "blamed besides: {:?}", blamed.difference(&ever).collect::<Vec<_>>());
        drop(right);
        Ok(())
    })
}

#[test]
fn carriers_the_data_centre_and_its_controller() -> Result<()> {
    in_a_network(|| {
        let offices = [0, 0, 0, 1, 1, 1];
        let mut p = Played::new(&["VNPT", "Viettel"], &offices, 1, &[])?;
        p.world.small_image()?;
        p.staff(offices.len(), 1, |s, device| match s {
            // A computer whose date somebody set wrong.
            5 => device.clock.off_by("-1h"),
            _ => Ok(()),
        })?;
        p.ready(0)?;
        let clock = p.one("computer", 5, 0);
        p.exactly("a wrong clock", std::slice::from_ref(&clock))?;

        p.province.cut_carrier(1)?;
        let carrier = blame("carrier", "carrier:Viettel");
        let told = [carrier.clone()];
        p.exactly("a carrier", &told)?;
        let i = p.incidents("open=true")?.into_iter().find(|i| i["cause"] == "carrier").context("there")?;
        ensure!(i["party"] == "carrier" && i["evidence"].to_string().contains("silent_sites_of"), "{}", brief(&i));
        p.province.mend_carrier(1)?;
        p.exactly("a carrier is back", std::slice::from_ref(&clock))?;

        // The controller dies and comes back: its own absence is nobody's fault.
        p.world.kill9()?;
        std::thread::sleep(Duration::from_secs(15));
        p.world.start_with(&FAST)?;
        p.world.listening()?;
        p.all_heard()?;
        p.exactly("a controller is back", &[clock])?;

        // Everybody at once: nobody calls communes.
        p.province.cut_carrier(0)?;
        p.province.cut_carrier(1)?;
        let centre = blame("data_centre", "centre");
        p.exactly("the data centre", std::slice::from_ref(&centre))?;
        p.province.mend_carrier(0)?;
        p.province.mend_carrier(1)?;
        // They come back one by one, and meanwhile nobody is blamed for those who are still on their way.
        p.all_heard()?;
        std::thread::sleep(Duration::from_secs(10));
        let ever: BTreeSet<Blame> = [carrier, centre].into();
        let blamed = p.ever()?;
        ensure!(blamed.is_subset(&ever), "blamed besides: {:?}", blamed.difference(&ever).collect::<Vec<_>>());
        Ok(())
    })
}
