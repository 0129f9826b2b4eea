//! An officer signs in at an endpoint: the agent's own client against the agents' listener, over real TLS, on
//! both databases. Tokens and tickets work from the endpoint they were made for, and from nowhere else.

use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tram_agent::config::Address;
use tram_agent::identity::{Identity, Request};
use tram_agent::link::{http, tls};
use tram_agent::session::control::{Control, ControlError};
use tram_controller::agents;
use tram_controller::domain::access::Role;
use tram_controller::domain::ticket::Binding;
use tram_controller::identity::ca::DeviceCa;
use tram_controller::identity::secret::Secret;
use tram_controller::services::{App, Ctx, broker, endpoints, enrolments, sign_in};
use tram_tests::db;
use tram_tests::office::{Office, Plan, SITE, noon};
use tram_wire::desk::{CONNECT_PATH, Connected, SignIn};
use tram_wire::enrol::EnrolRequest;
use tram_wire::hello::Hello;
use tram_wire::version;

const PASSWORD: &str = "Trúc Bạch 2026";

struct World {
    office: Office,
    at: Address,
    _stop: tokio_util::sync::DropGuard,
    _folder: TempDir,
    db: db::TestDb,
}

impl World {
    async fn all(plan: Plan) -> Result<Vec<Self>> {
        let mut worlds = Vec::new();
        for db in db::both().await? {
            db.raw(&format!(
                "INSERT INTO sites (code, valid_from, name, short_name, type, level, search_key) \
                 VALUES ('{SITE}', '2016-01-01', 'Phường Trúc Bạch', 'Trúc Bạch', 'phường', 'commune', 'truc bach')"
            ))
            .await?;
            let mut office = Office::build(&db.store, noon(), plan).await?;
            let folder = tempfile::tempdir()?;
            office.app = App { data_dir: folder.path().to_owned(), ..office.app };
            let hash = office.app.passwords.hash(&Secret::from_text(PASSWORD)).await?;
            office.sql(&format!("UPDATE users SET password_hash = '{hash}'")).await?;
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let at = Address { host: "127.0.0.1".into(), port: listener.local_addr()?.port() };
            let stop = CancellationToken::new();
            tokio::spawn(agents::serve(office.app.clone(), listener, None, stop.clone()));
            worlds.push(Self { office, at, _stop: stop.drop_guard(), _folder: folder, db });
        }
        Ok(worlds)
    }

    fn admin(&self) -> Ctx {
        Ctx::local_admin(self.office.app.clock.now())
    }

    /// A computer that enrolled.
    async fn endpoint(&self) -> Result<Identity> {
        let new = endpoints::TokenRequest {
            site_code: SITE.into(),
            count: 1,
            ttl_hours: 1,
            ..endpoints::TokenRequest::default()
        };
        let (token, _) = endpoints::create_token(&self.office.app, &self.admin(), &new).await?;
        let key = Request::new()?;
        let hello = Hello {
            versions: version::OURS,
            agent_version: "0.1.0".into(),
            at_ms: 0,
            hostname: "mot-cua-03".into(),
            os: "Debian".into(),
            kernel: "6".into(),
            arch: "x86_64".into(),
            boot_id: "b".into(),
            connects: 0,
            instance: None,
            key: None,
        };
        let request = EnrolRequest { token, csr_pem: key.csr_pem.clone(), hello, hardware: None };
        // The token's pin would be checked by this computer's clock, which is not the test's.
        let ca = DeviceCa::open(&self.office.app.data_dir, self.office.app.clock.now())?;
        let answer = enrolments::enrol(&self.office.app, &self.admin(), &ca, &request).await?;
        Ok(Identity {
            controller: self.at.to_string(),
            endpoint_id: answer.endpoint_id,
            key_pem: key.key_pem(),
            issued: answer.issued,
            connects: 0,
            copy: None,
        })
    }

    async fn audited(&self, what: &str) -> Result<i64> {
        self.office.count(&format!("SELECT COUNT(*) FROM audit WHERE {what}")).await
    }
}

fn who(username: &str, password: &str) -> SignIn {
    SignIn { username: username.into(), password: password.into() }
}

/// The code of what must have been refused.
fn code<T>(done: Result<T, ControlError>) -> String {
    match done {
        Ok(_) => "done".to_owned(),
        Err(e) => e.code().to_owned(),
    }
}

#[tokio::test]
async fn an_officer_signs_in_gets_a_ticket_for_this_computer_and_leaves() -> Result<()> {
    for w in World::all(Plan::default()).await? {
        let app = &w.office.app;
        let (here, there) = (w.endpoint().await?, w.endpoint().await?);
        let (desk, other) = (Control::new(&here)?, Control::new(&there)?);
        let me = desk.sign_in(&who("officer0", PASSWORD)).await?;
        assert_eq!((me.display_name.as_str(), me.language.as_str()), ("officer0", "vi"));
        assert_eq!(desk.session(&me.token).await?.session, None);
        let Connected { session, ticket, .. } = desk.connect(&me.token, false).await?;
        let ticket = ticket.context("the desktop runs")?;
        assert_eq!((session.state.as_str(), ticket.expires_s), ("ready", 30));
        assert_eq!(desk.session(&me.token).await?.session.map(|s| s.id), Some(session.id));

        // The token is worth nothing elsewhere: at another endpoint, or as a browser's cookie.
        assert_eq!(code(other.connect(&me.token, false).await), "A-100");
        assert_eq!(code(other.session(&me.token).await), "A-100");
        assert!(sign_in::visit(app, "192.0.2.7", &me.token).await.is_err());
        let browser = sign_in::sign_in(app, "192.0.2.7", "officer1", &Secret::from_text(PASSWORD)).await?;
        assert_eq!(code(desk.connect(browser.token.reveal(), false).await), "A-100");
        assert_eq!(code(desk.connect("tds1_\r\nx: y", false).await), "D-101", "no line is smuggled into the request");

        // Nor the ticket: it needs this endpoint and the very certificate.
        let thumb = |i: &Identity| -> Result<[u8; 32]> {
            use rustls::pki_types::{CertificateDer, pem::PemObject};
            let der = CertificateDer::from_pem_slice(i.issued.certificate_pem.as_bytes())?;
            Ok(sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), &der)).into())
        };
        let bound =
            |i: &Identity| -> Result<Binding> { Ok(Binding::Endpoint { id: i.endpoint_id, certificate: thumb(i)? }) };
        assert!(broker::redeem(app, &ticket.ticket, &bound(&there)?, None).await?.is_none());
        assert!(broker::redeem(app, &ticket.ticket, &Office::browser(0), None).await?.is_none());
        assert!(broker::redeem(app, &ticket.ticket, &bound(&here)?, None).await?.is_some());

        desk.sign_out(&me.token, true).await?;
        assert_eq!(code(desk.session(&me.token).await), "A-100");
        assert_eq!(w.office.count("SELECT COUNT(*) FROM sessions WHERE state <> 'ended'").await?, 0);
        let named =
            format!("action = 'user.sign_in' AND result = 'ok' AND CAST(detail AS TEXT) LIKE '%{}%'", here.endpoint_id);
        assert_eq!(w.audited(&named).await?, 1, "the audit names the endpoint");
        assert_eq!(w.audited("action = 'user.sign_out'").await?, 1);
    }
    Ok(())
}

#[tokio::test]
async fn leaving_without_ending_keeps_the_desktop() -> Result<()> {
    for w in World::all(Plan::default()).await? {
        let desk = Control::new(&w.endpoint().await?)?;
        let me = desk.sign_in(&who("officer0", PASSWORD)).await?;
        let before = desk.connect(&me.token, false).await?.session.id;
        desk.sign_out(&me.token, false).await?;
        let me = desk.sign_in(&who("officer0", PASSWORD)).await?;
        assert_eq!(desk.connect(&me.token, false).await?.session.id, before);
    }
    Ok(())
}

#[tokio::test]
async fn a_desktop_that_boots_is_waited_for_with_its_step() -> Result<()> {
    for w in World::all(Plan { running: false, ..Plan::default() }).await? {
        let desk = Control::new(&w.endpoint().await?)?;
        let me = desk.sign_in(&who("officer0", PASSWORD)).await?;
        w.office.sql("UPDATE desktops SET state = 'booting', desired = 'running'").await?;
        let Connected { session, ticket, .. } = desk.connect(&me.token, false).await?;
        assert!(ticket.is_none());
        assert_eq!(session.step.context("a step")?.code, "booting");
    }
    Ok(())
}

#[tokio::test]
async fn wrong_passwords_are_counted_with_those_of_browsers() -> Result<()> {
    for w in World::all(Plan::default()).await? {
        let (a, b) = (Control::new(&w.endpoint().await?)?, Control::new(&w.endpoint().await?)?);
        for n in 0..4 {
            let refused = if n % 2 == 0 { &a } else { &b }.sign_in(&who("officer0", "wrong")).await;
            let Err(ControlError::Refused(p)) = refused else { anyhow::bail!("{refused:?}") };
            assert_eq!((p.code.as_str(), p.remaining), ("A-101", Some(4 - n)));
        }
        let fifth = sign_in::sign_in(&w.office.app, "192.0.2.7", "officer0", &Secret::from_text("wrong")).await;
        assert_eq!(fifth.err().map(|e| e.code()), Some("A-102"));
        let Err(ControlError::Refused(p)) = a.sign_in(&who("officer0", PASSWORD)).await else {
            anyhow::bail!("signed in to a locked account")
        };
        assert_eq!(p.code, "A-102");
        assert!(p.retry_after_s.is_some_and(|s| (800..=901).contains(&s)), "{p:?}");
    }
    Ok(())
}

#[tokio::test]
async fn only_officers_sit_at_endpoints() -> Result<()> {
    for w in World::all(Plan::default()).await? {
        let hash = w.office.app.passwords.hash(&Secret::from_text(PASSWORD)).await?;
        w.office.add_user("helper", Role::Support, Some(SITE)).await?;
        w.office.sql(&format!("UPDATE users SET password_hash = '{hash}'")).await?;
        let desk = Control::new(&w.endpoint().await?)?;
        assert_eq!(code(desk.sign_in(&who("helper", "wrong")).await), "A-101", "nothing is told before the password");
        assert_eq!(code(desk.sign_in(&who("helper", PASSWORD)).await), "A-110");
        assert_eq!(w.audited("action = 'user.sign_in' AND result = 'A-110'").await?, 1);
        w.office.sql("UPDATE users SET disabled = TRUE WHERE username = 'officer1'").await?;
        assert_eq!(code(desk.sign_in(&who("officer1", PASSWORD)).await), "A-109");
    }
    Ok(())
}

#[tokio::test]
async fn only_an_enrolled_endpoint_is_served() -> Result<()> {
    for w in World::all(Plan::default()).await? {
        let here = w.endpoint().await?;
        let desk = Control::new(&here)?;
        let me = desk.sign_in(&who("officer0", PASSWORD)).await?;
        endpoints::revoke(&w.office.app, &w.admin(), here.endpoint_id, "stolen").await?;
        for refused in [
            code(desk.sign_in(&who("officer0", PASSWORD)).await),
            code(desk.connect(&me.token, false).await),
            code(desk.session(&me.token).await),
            code(desk.sign_out(&me.token, true).await),
        ] {
            assert_eq!(refused, "E-302");
        }
        // A certificate of our authority for an endpoint nobody knows.
        let gone = w.endpoint().await?;
        w.db.raw("DELETE FROM endpoints WHERE name = 'mot-cua-03' AND state <> 'revoked'").await?;
        assert_eq!(code(Control::new(&gone)?.sign_in(&who("officer0", PASSWORD)).await), "E-301");
    }
    Ok(())
}

#[tokio::test]
async fn a_guessing_computer_is_slowed_down() -> Result<()> {
    for w in World::all(Plan::default()).await? {
        let desk = Control::new(&w.endpoint().await?)?;
        let mut slowed = None;
        for n in 0..30 {
            if let Err(ControlError::Refused(p)) = desk.sign_in(&who(&format!("nobody{n}"), "guess")).await
                && p.code == "E-429"
            {
                slowed = p.retry_after_s;
                break;
            }
        }
        assert!(slowed.is_some_and(|s| s <= 7), "{slowed:?}");
        let other = Control::new(&w.endpoint().await?)?;
        assert_eq!(code(other.sign_in(&who("officer0", PASSWORD)).await), "done", "others are not slowed down");
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_has_ended_or_is_another_authoritys_is_told_apart() -> Result<()> {
    for w in World::all(Plan::default()).await? {
        let (app, here) = (&w.office.app, w.endpoint().await?);
        let elsewhere = tempfile::tempdir()?;
        let foreign = DeviceCa::open(elsewhere.path(), app.clock.now())?;
        let key = Request::new()?;
        let issued = foreign.sign(&key.csr_pem, here.endpoint_id, app.clock.now())?;
        // The authority it trusts stays ours, else it would not speak to us at all.
        let issued = tram_wire::enrol::Issued { ca_pem: here.issued.ca_pem.clone(), ..issued };
        let forged = Identity { key_pem: key.key_pem(), issued, ..here.clone() };
        assert_eq!(code(Control::new(&forged)?.sign_in(&who("officer0", PASSWORD)).await), "E-301");
        let desk = Control::new(&here)?;
        assert_eq!(code(desk.sign_in(&who("officer0", PASSWORD)).await), "done");
        app.clock.set(app.clock.now().plus(Duration::from_secs(31 * 86_400)));
        assert_eq!(code(desk.sign_in(&who("officer0", PASSWORD)).await), "E-303");
    }
    Ok(())
}

/// What an endpoint asks for names no address, no desktop and no session: whatever else it says is not read.
#[tokio::test]
async fn an_endpoint_can_not_say_where_to() -> Result<()> {
    for w in World::all(Plan::default()).await? {
        let here = w.endpoint().await?;
        let desk = Control::new(&here)?;
        let me = desk.sign_in(&who("officer0", PASSWORD)).await?;
        let them = desk.sign_in(&who("officer1", PASSWORD)).await?;
        let theirs = desk.connect(&them.token, false).await?.session;
        let wish = serde_json::json!({
            "take_over": true, "session": theirs.id, "desktop": theirs.desktop, "user": "officer1",
            "host": "169.254.169.254", "port": 80, "url": "http://127.0.0.1:8443/", "gateway": "127.0.0.1:1",
        });
        let body = serde_json::to_vec(&wish)?;
        let request = http::Request { method: "POST", path: CONNECT_PATH, bearer: Some(&me.token), body: &body };
        let answer = http::ask(&w.at, tls::link(&here)?, &request).await?;
        let Connected { session, .. } = serde_json::from_slice(&answer.body)?;
        assert_ne!(session.id, theirs.id);
        assert_ne!(session.desktop, theirs.desktop);
        assert_eq!(desk.session(&them.token).await?.session.map(|s| s.state), Some("ready".into()), "theirs goes on");
    }
    Ok(())
}
