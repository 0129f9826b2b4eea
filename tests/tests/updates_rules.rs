//! How a release of the agent spreads, on both databases: who is told of it and when, what stops it, who may say so.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tram_controller::domain::access::{Caller, Role, Scope};
use tram_controller::domain::rings::{Rings, RolloutState, UpdateRing};
use tram_controller::identity::papers::{PaperKey, Purpose, public_keys};
use tram_controller::identity::releases::Signers;
use tram_controller::services::updates::{self, Wish};
use tram_controller::services::{App, Ctx, Error, endpoints};
use tram_controller::store::endpoints::Endpoint;
use tram_tests::db;
use tram_tests::http::{COMMUNE, ELSEWHERE, TestApi};
use tram_wire::ids::{EndpointId, UserId};
use tram_wire::update::{Answer, Ask, FORM, Manifest, Progress, Ring, Signature, SignedManifest, Stage};
use uuid::Uuid;

struct World {
    api: TestApi,
    app: App,
    folder: tempfile::TempDir,
    keys: Vec<PaperKey>,
    lab: Endpoint,
    other: Endpoint,
}

impl World {
    async fn on(db: &db::TestDb) -> Result<Self> {
        let api = TestApi::new(&db.store).await?;
        let folder = tempfile::tempdir()?;
        let keys = (0..3).map(|n| PaperKey::make(folder.path(), &format!("{n}"))).collect::<Result<Vec<_>, _>>()?;
        let public: Vec<String> = keys.iter().map(PaperKey::public).collect();
        let keys_known = public_keys(public.iter().map(String::as_str)).map_err(anyhow::Error::msg)?;
        let rings = Rings { lab_sites: vec![COMMUNE.into()], spread: Duration::ZERO, canaries: 0, ..Rings::default() };
        let app = App { rings, signers: Signers { keys: keys_known, needed: 2 }, ..api.app().clone() };
        let lab = endpoint(&app, "lab-1", COMMUNE).await?;
        let other = endpoint(&app, "desk-1", ELSEWHERE).await?;
        Ok(Self { api, app, folder, keys, lab, other })
    }

    fn ctx(&self) -> Ctx {
        Ctx::local_admin(self.app.clock.now())
    }

    fn program(&self, bytes: &[u8]) -> Result<std::path::PathBuf> {
        let path = self.folder.path().join("program");
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    fn manifest(&self, counter: u64, bytes: &[u8]) -> Manifest {
        Manifest {
            form: FORM,
            version: format!("{counter}.0"),
            counter,
            arch: "x86_64".into(),
            sha256: format!("{:x}", Sha256::digest(bytes)),
            size: bytes.len() as u64,
            min_protocol: 1,
            ring: Ring::All,
            expires_ms: self.app.clock.now().micros() / 1000 + 30 * 86_400_000,
        }
    }

    fn sign(&self, manifest: &Manifest, by: &[usize]) -> Result<SignedManifest> {
        let manifest = serde_json::to_string(manifest)?;
        let sign = |n: &usize| -> Result<Signature> {
            let key = &self.keys[*n];
            Ok(Signature { key: key.id(), signature: key.sign(Purpose::Release, &manifest)? })
        };
        Ok(SignedManifest { signatures: by.iter().map(sign).collect::<Result<_>>()?, manifest })
    }

    async fn publish(&self, signed: SignedManifest, program: &Path) -> Result<Uuid, Error> {
        Ok(updates::publish(&self.app, &self.ctx(), signed, program, (false, true)).await?.id)
    }

    async fn ask(&self, at: &Endpoint, progress: Option<(u64, Stage, u8)>) -> Result<Answer> {
        let code = |stage| if stage == Stage::RolledBack { "crashed" } else { "" };
        let progress = progress.map(|(counter, stage, strikes)| Progress {
            counter,
            stage,
            code: code(stage).into(),
            detail: String::new(),
            strikes,
            bytes: 0,
            from_peer: 0,
        });
        let ask = Ask { protocol: 1, arch: "x86_64".into(), progress, ..Ask::default() };
        Ok(updates::answer(&self.app, at, &ask, self.app.clock.now()).await?)
    }

    async fn state(&self, id: Uuid) -> Result<(RolloutState, UpdateRing)> {
        updates::advance(&self.app, self.app.clock.now()).await?;
        let known = updates::get(&self.app, &self.ctx(), id).await?;
        Ok((known.release.state, known.release.ring))
    }
}

async fn endpoint(app: &App, name: &str, site: &str) -> Result<Endpoint> {
    let (id, now) = (EndpointId(Uuid::now_v7()), app.clock.now());
    let mut tx = app.store.begin().await?;
    tx.add_endpoint(id, name, site, &json!({}), now, now).await?;
    tx.commit().await?;
    app.store.endpoint(id).await?.context("it is there")
}

fn code<T>(done: Result<T, Error>) -> String {
    done.err().map_or_else(|| "none".to_owned(), |e| e.code().to_owned())
}

#[tokio::test]
async fn what_is_not_signed_as_it_is_is_not_taken_in() -> Result<()> {
    for db in db::both().await? {
        let w = World::on(&db).await?;
        let bytes = b"a program";
        let (program, m) = (w.program(bytes)?, w.manifest(5, bytes));
        assert_eq!(code(w.publish(w.sign(&m, &[0])?, &program).await), "V-102");
        assert_eq!(code(w.publish(w.sign(&m, &[1, 1])?, &program).await), "V-102", "one person twice");
        let mut altered = w.sign(&m, &[0, 1])?;
        altered.manifest = altered.manifest.replace("\"counter\":5", "\"counter\":6");
        assert_eq!(code(w.publish(altered, &program).await), "V-102");
        let bad = Manifest { version: "../../5.0".into(), ..m.clone() };
        assert_eq!(code(w.publish(w.sign(&bad, &[0, 1])?, &program).await), "V-101");
        let bad = Manifest { counter: u64::MAX, ..m.clone() };
        assert_eq!(code(w.publish(w.sign(&bad, &[0, 1])?, &program).await), "V-101");
        let bad = Manifest { expires_ms: w.app.clock.now().micros() / 1000, ..m.clone() };
        assert_eq!(code(w.publish(w.sign(&bad, &[0, 1])?, &program).await), "V-105");
        for wrong in [b"A program".as_slice(), b"a progra", b"a program!"] {
            let program = w.program(wrong)?;
            assert_eq!(code(w.publish(w.sign(&m, &[0, 1])?, &program).await), "V-103");
        }
        let program = w.program(bytes)?;
        w.publish(w.sign(&m, &[0, 2])?, &program).await?;
        assert_eq!(w.app.store.program(&m.sha256).await?.as_deref(), Some(bytes.as_slice()));
        assert_eq!(code(w.publish(w.sign(&m, &[0, 1])?, &program).await), "V-104");
        let older = Manifest { counter: 4, version: "4.0".into(), ..m };
        assert_eq!(code(w.publish(w.sign(&older, &[0, 1])?, &program).await), "V-104");
    }
    Ok(())
}

#[tokio::test]
async fn the_next_ring_is_let_in_when_the_one_before_is_well() -> Result<()> {
    for db in db::both().await? {
        let w = World::on(&db).await?;
        let bytes = b"a program";
        let id = w.publish(w.sign(&w.manifest(5, bytes), &[0, 1])?, &w.program(bytes)?).await?;
        let offer = w.ask(&w.lab, None).await?.offer.context("the lab is told")?;
        assert_eq!((offer.ring, offer.wait_s, offer.alive_s), (Ring::Lab, Some(0), 600));
        assert!(w.ask(&w.other, None).await?.offer.is_none(), "nobody else is");
        w.ask(&w.lab, Some((5, Stage::Trial, 0))).await?;
        assert_eq!(w.state(id).await?, (RolloutState::Running, UpdateRing::Lab));
        assert!(w.ask(&w.lab, Some((5, Stage::Committed, 0))).await?.offer.is_none(), "it has it");
        assert_eq!(w.state(id).await?, (RolloutState::Running, UpdateRing::Lab), "it has to soak");
        w.api.pass(Duration::from_secs(3600));
        let mut last = UpdateRing::Lab;
        for _ in 0..4 {
            last = w.state(id).await?.1;
        }
        // The other one is in the share of all, or in the rest, by its id.
        let ring = w.app.rings.late(w.other.id, ELSEWHERE);
        assert_eq!(last, ring);
        let offer = w.ask(&w.other, None).await?.offer.context("it is its turn")?;
        assert_eq!(UpdateRing::from(offer.ring), ring);

        // Another architecture's updater gets nothing of it.
        let ask = Ask { protocol: 1, arch: "aarch64".into(), ..Ask::default() };
        assert!(updates::answer(&w.app, &w.other, &ask, w.app.clock.now()).await?.offer.is_none());
        w.ask(&w.other, Some((5, Stage::Committed, 0))).await?;
        w.api.pass(Duration::from_secs(3600));
        for _ in 0..3 {
            w.state(id).await?;
            w.api.pass(Duration::from_secs(3600));
        }
        assert_eq!(w.state(id).await?.0, RolloutState::Done);
        // Who comes later gets it, too.
        let late = endpoint(&w.app, "desk-9", ELSEWHERE).await?;
        assert!(w.ask(&late, None).await?.offer.is_some());
    }
    Ok(())
}

#[tokio::test]
async fn where_the_line_is_paid_by_the_byte_updaters_ask_seldom() -> Result<()> {
    for db in db::both().await? {
        let w = World::on(&db).await?;
        let usual = w.ask(&w.lab, None).await?.again_s;
        assert_eq!(u64::from(usual), w.app.rings.again.as_secs());
        endpoints::set_metered(&w.app, &w.ctx(), w.lab.id, Some(true)).await?;
        let (metered, _) = endpoints::get(&w.app, &w.ctx(), w.lab.id).await?;
        assert_eq!(w.ask(&metered, None).await?.again_s, usual * 4);
        assert_eq!(w.ask(&w.other, None).await?.again_s, usual, "another one's line is its own");
    }
    Ok(())
}

#[tokio::test]
async fn failures_stop_it_and_only_an_operator_lets_it_go_on() -> Result<()> {
    for db in db::both().await? {
        let w = World::on(&db).await?;
        let bytes = b"a program";
        let id = w.publish(w.sign(&w.manifest(5, bytes), &[0, 1])?, &w.program(bytes)?).await?;
        w.ask(&w.lab, Some((5, Stage::RolledBack, 1))).await?;
        assert_eq!(w.state(id).await?.0, RolloutState::Stopped);
        assert!(w.ask(&w.lab, Some((5, Stage::RolledBack, 1))).await?.offer.is_none(), "nobody begins");
        let known = updates::get(&w.app, &w.ctx(), id).await?;
        assert_eq!((known.failures[0].code.as_str(), known.failures[0].strikes), ("crashed", 1));
        // Somebody else's support does not see it.
        let caller = Caller::User {
            id: UserId(Uuid::now_v7()),
            username: "s".into(),
            role: Role::Support,
            scope: Scope::Sites(vec![ELSEWHERE.into()]),
        };
        let support = Ctx { caller, ..w.ctx() };
        assert!(updates::get(&w.app, &support, id).await?.failures.is_empty());
        assert_eq!(code(updates::wish(&w.app, &support, id, Wish::Resume, "").await), "A-105");
        assert_eq!(code(updates::wish(&w.app, &w.ctx(), id, Wish::Pause, "").await), "V-107", "it is stopped");
        assert_eq!(code(updates::wish(&w.app, &w.ctx(), id, Wish::Resume, "a\nb").await), "V-108");
        w.api.pass(Duration::from_secs(1));
        updates::wish(&w.app, &w.ctx(), id, Wish::Resume, "looked at").await?;
        assert_eq!(w.state(id).await?.0, RolloutState::Running, "what is forgiven does not stop it again");
        assert!(w.ask(&w.lab, Some((5, Stage::RolledBack, 1))).await?.offer.is_some());
        assert_eq!(w.state(id).await?.0, RolloutState::Running, "told twice is no second failure");
        w.api.pass(Duration::from_secs(1));
        w.ask(&w.lab, Some((5, Stage::RolledBack, 2))).await?;
        assert_eq!(w.state(id).await?.0, RolloutState::Stopped, "but a second failure is");
        updates::wish(&w.app, &w.ctx(), id, Wish::Abort, "").await?;
        assert_eq!(code(updates::wish(&w.app, &w.ctx(), id, Wish::Resume, "").await), "V-107", "for good");
        assert!(w.ask(&w.lab, None).await?.offer.is_none());
        let log = w.app.store.releases().await?;
        assert_eq!((log.len(), log[0].state), (1, RolloutState::Aborted));
    }
    Ok(())
}

#[tokio::test]
async fn an_office_waits_for_its_copy_and_not_for_ever() -> Result<()> {
    for db in db::both().await? {
        let w = World::on(&db).await?;
        let second = endpoint(&w.app, "lab-2", COMMUNE).await?;
        let mut tx = w.app.store.begin().await?;
        tx.put_site_prober(COMMUNE, w.lab.id, w.app.clock.now()).await?;
        tx.commit().await?;
        let bytes = b"a program";
        let m = w.manifest(5, bytes);
        let keeps = |keeps: Option<String>| Ask {
            protocol: 1,
            arch: "x86_64".into(),
            keeps_at: Some("192.0.2.5:7445".into()),
            keeps,
            ..Ask::default()
        };
        w.publish(w.sign(&m, &[0, 1])?, &w.program(bytes)?).await?;
        let first = updates::answer(&w.app, &w.lab, &keeps(None), w.app.clock.now()).await?;
        assert!(first.keep && first.offer.is_some(), "who keeps the copy fetches it first");
        let waits = w.ask(&second, None).await?;
        assert!(waits.offer.is_none() && !waits.keep && waits.again_s <= 60, "{waits:?}");
        updates::answer(&w.app, &w.lab, &keeps(Some(m.sha256.clone())), w.app.clock.now()).await?;
        let offer = w.ask(&second, None).await?.offer.context("the copy is there")?;
        assert_eq!(offer.peers, ["192.0.2.5:7445"]);
        // The keeper has lost it, and does not get it back.
        updates::answer(&w.app, &w.lab, &keeps(None), w.app.clock.now()).await?;
        w.api.pass(w.app.rings.peer_patience);
        let offer = w.ask(&second, None).await?.offer.context("it asks the controller then")?;
        assert!(offer.peers.is_empty());
        // What makes no sense is not written down.
        for bad in [json!({"arch": "x\n"}), json!({"keeps_at": "x"}), json!({"keeps": "../x"})] {
            let mut ask = serde_json::to_value(keeps(None))?;
            for (k, v) in bad.as_object().into_iter().flatten() {
                ask[k] = v.clone();
            }
            let ask: Ask = serde_json::from_value::<Ask>(ask.clone()).with_context(|| Value::to_string(&ask))?;
            assert_eq!(code(updates::answer(&w.app, &second, &ask, w.app.clock.now()).await), "V-109");
        }
    }
    Ok(())
}
