//! The desk in a terminal: the same officer's day for a screen without a browser, line by line.
//!
//! What is shown is what the page shows ([`super::texts`]); what is typed is a line at a time. The password is not
//! echoed, and the terminal is as before however this ends. Support can't be let in from here: a question could
//! not come before the viewer, so the answer is no.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command as Process, Stdio};

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tram_wire::desk::SignIn;

use super::cause::Cause;
use super::page::{Command, Shown, Wishes};
use super::texts::text;
use super::view::{Enrolling, Phase, View};

/// A terminal that is narrower is written to as if it were this wide.
const NARROWEST: usize = 20;
const USUAL: usize = 80;

/// How a line is coloured, where colours are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Title,
    Plain,
    Note,
    Fault,
    Good,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Title => "\x1b[1m",
            Self::Plain => "",
            Self::Note => "\x1b[33m",
            Self::Fault => "\x1b[31m",
            Self::Good => "\x1b[32m",
        }
    }
}

/// What is asked for on the line that is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Prompt {
    None,
    Name,
    Password(String),
    /// A number of one of these.
    Menu(Vec<&'static str>),
}

impl Prompt {
    fn of(phase: Phase) -> Self {
        match phase {
            Phase::SignIn => Self::Name,
            Phase::TakeOver => Self::Menu(vec!["take_over", "sign_out", "call_support"]),
            Phase::Waiting | Phase::Opening | Phase::Lost => Self::Menu(vec!["sign_out", "call_support"]),
            Phase::Warned => Self::Menu(vec!["again", "sign_out", "call_support"]),
            Phase::Left => Self::Menu(vec!["again", "sign_out", "end", "call_support"]),
            Phase::Signing | Phase::Desktop | Phase::Asked => Self::None,
        }
    }
}

/// Serves one terminal until its input ends.
///
/// # Errors
/// The terminal's.
pub async fn run(mut view: watch::Receiver<Shown>, wishes: Wishes) -> io::Result<()> {
    let mut terminal = Terminal::new();
    let (typed, mut lines) = mpsc::channel(4);
    // A thread of its own: a read of a terminal can't be called off. It ends with the program.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let mut shown: Vec<(Tone, String)> = Vec::new();
    let (mut phase, mut said) = (None, 0);
    loop {
        let (version, now) = view.borrow_and_update().clone();
        let lines_now = say(&now, &terminal.language);
        let news: Vec<_> = lines_now.iter().filter(|l| !shown.contains(l)).cloned().collect();
        // Also when a wish was answered so fast that the phase between was never seen.
        let answered = terminal.prompt == Prompt::None && version > said && Prompt::of(now.phase) != Prompt::None;
        let again = phase != Some(now.phase) || answered;
        if again || !news.is_empty() {
            terminal.print(if again { &lines_now } else { &news })?;
            if again {
                terminal.prompt = Prompt::of(now.phase);
                phase = Some(now.phase);
            }
            terminal.ask()?;
        }
        shown = lines_now;
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return Ok(()) },
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                if let Some(command) = terminal.take(line)? {
                    if command == Command::CallSupport {
                        // What was asked for stays as it is.
                        terminal.prompt = Prompt::of(now.phase);
                        terminal.ask()?;
                    } else {
                        said = version;
                    }
                    // A full queue means that the last wishes are still being worked on.
                    let _ = wishes.send(command);
                }
            }
        }
    }
}

struct Terminal {
    language: String,
    prompt: Prompt,
    /// Somebody types here, and reads here.
    input: bool,
    colours: bool,
    /// The settings to go back to, while nothing is echoed.
    before: Option<String>,
}

impl Terminal {
    fn new() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(|n| set(n)).unwrap_or_default();
        let dumb = set("TERM").is_none_or(|t| t == "dumb");
        Self {
            language: if locale.starts_with("en") { "en" } else { "vi" }.to_owned(),
            prompt: Prompt::None,
            input: io::stdin().is_terminal(),
            colours: io::stdout().is_terminal() && !dumb && set("NO_COLOR").is_none(),
            before: None,
        }
    }

    fn print(&self, lines: &[(Tone, String)]) -> io::Result<()> {
        let width = if io::stdout().is_terminal() { width() } else { usize::MAX };
        let mut out = io::stdout().lock();
        writeln!(out)?;
        for (tone, line) in lines {
            for part in wrap(line, width) {
                match (self.colours, tone.code()) {
                    (true, code) if !code.is_empty() => writeln!(out, "{code}{part}\x1b[0m")?,
                    _ => writeln!(out, "{part}")?,
                }
            }
        }
        out.flush()
    }

    /// Says what may be typed.
    fn ask(&mut self) -> io::Result<()> {
        self.echo(!matches!(self.prompt, Prompt::Password(_)));
        let word = |key: &str| text(&self.language, key, &[]).unwrap_or_default();
        let mut out = io::stdout().lock();
        match &self.prompt {
            Prompt::None => {}
            Prompt::Name => write!(out, "{}: ", word("username"))?,
            Prompt::Password(_) => write!(out, "{}: ", word("password"))?,
            Prompt::Menu(actions) => {
                for (n, action) in actions.iter().enumerate() {
                    writeln!(out, "  {}  {}", n + 1, word(action))?;
                }
                write!(out, "> ")?;
            }
        }
        out.flush()
    }

    /// What a line means; asks on where it means nothing.
    fn take(&mut self, line: String) -> io::Result<Option<Command>> {
        match std::mem::replace(&mut self.prompt, Prompt::None) {
            Prompt::Name if line.trim() == "?" => return Ok(Some(Command::CallSupport)),
            Prompt::Name if !line.trim().is_empty() => {
                self.prompt = Prompt::Password(line.trim().to_owned());
                self.ask()?;
            }
            Prompt::Password(username) => {
                self.echo(true);
                // The officer's own Enter was not echoed.
                if self.input {
                    writeln!(io::stdout())?;
                }
                return Ok(Some(Command::SignIn(SignIn { username, password: line })));
            }
            Prompt::Menu(actions) => {
                let chosen = line.trim().parse::<usize>().ok().and_then(|n| actions.get(n.checked_sub(1)?).copied());
                self.prompt = Prompt::Menu(actions);
                match chosen {
                    Some(action) => return Ok(Some(command(action))),
                    None => self.ask()?,
                }
            }
            other => {
                self.prompt = other;
                self.ask()?;
            }
        }
        Ok(None)
    }

    /// Whether what is typed is seen. `stty` does it on the terminal we have; without one there is no echo either.
    fn echo(&mut self, on: bool) {
        if on {
            if let Some(before) = self.before.take() {
                stty(&[&before]);
            }
        } else if self.input && self.before.is_none() {
            self.before = stty(&["-g"]).filter(|s| !s.is_empty());
            stty(&["-echo"]);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.echo(true);
    }
}

fn command(action: &str) -> Command {
    match action {
        "take_over" => Command::TakeOver,
        "sign_out" => Command::SignOut { end: false },
        "end" => Command::SignOut { end: true },
        "call_support" => Command::CallSupport,
        _ => Command::Again,
    }
}

fn stty(words: &[&str]) -> Option<String> {
    let out = Process::new("stty").args(words).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Columns of the terminal.
fn width() -> usize {
    let size = stty(&["size"]);
    let columns = size.and_then(|s| s.split_whitespace().nth(1)?.parse::<usize>().ok()).filter(|n| *n > 0);
    columns.unwrap_or(USUAL).max(NARROWEST)
}

/// Breaks at spaces; a word that is longer than a line is broken, too. Nothing of it moves the cursor.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut used = 0;
    for word in line.split_whitespace() {
        let word: Vec<char> = word.chars().filter(|c| !c.is_control()).collect();
        if used > 0 && used + 1 + word.len() > width {
            out.push(String::new());
            used = 0;
        }
        for (n, c) in word.into_iter().enumerate() {
            if n == 0 && used > 0 {
                out.last_mut().into_iter().for_each(|l| l.push(' '));
                used += 1;
            } else if used >= width {
                out.push(String::new());
                used = 0;
            }
            out.last_mut().into_iter().for_each(|l| l.push(c));
            used += 1;
        }
    }
    out
}

fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v: Value| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn span(language: &str, seconds: u64) -> String {
    let (key, n) = if seconds >= 90 { ("minutes", (seconds + 30) / 60) } else { ("seconds", seconds) };
    text(language, key, &[("n", &n.to_string())]).unwrap_or_default()
}

/// What the page would show, as lines.
fn say(view: &View, language: &str) -> Vec<(Tone, String)> {
    let t = |key: &str, values: &[(&str, &str)]| text(language, key, values);
    let (name, desktop) = (view.name.as_deref().unwrap_or_default(), view.desktop.as_deref().unwrap_or_default());
    let phase = word(view.phase);
    let title = match view.phase {
        Phase::SignIn => "title".to_owned(),
        Phase::Lost if view.gateway_lost => "phase_gateway_lost".to_owned(),
        _ => format!("phase_{phase}"),
    };
    let mut lines = vec![(Tone::Title, t(&title, &[("name", name), ("desktop", desktop)]).unwrap_or_default())];
    let call = t("call", &[("phone", &view.phone)]).filter(|_| !view.phone.is_empty());
    let help = |sentence: Option<String>, code: &str| {
        [sentence.or_else(|| t("code_other", &[])), Some(format!("({code})")), call.clone()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    };
    if view.phase == Phase::Lost {
        let (key, code) = if view.gateway_lost { ("gateway_lost_now", "G-503") } else { ("lost_now", "K-102") };
        lines.push((Tone::Note, help(t(key, &[]), code)));
    } else if let Some(w) = &view.warning {
        let left = span(language, w.in_s.into());
        lines.push((Tone::Note, t(&format!("warn_{}", w.code), &[("time", &left)]).unwrap_or_default()));
    } else if let Some(n) = &view.notice {
        let (own, code) = (t(&n.code, &[]), n.searchable());
        lines.push((Tone::Note, help(own.or_else(|| t(&format!("code_{}", n.code), &[])), &code)));
    }
    if matches!(view.phase, Phase::Waiting | Phase::Opening) {
        lines.push((Tone::Plain, step(view, language, &phase)));
    }
    if let Some(p) = &view.problem {
        let mut parts = vec![help(t(&format!("code_{}", p.code), &[]), &p.code)];
        parts.extend(p.remaining.and_then(|n| t("remaining", &[("n", &n.to_string())])));
        parts.extend(p.retry_after_s.and_then(|s| t("retry", &[("time", &span(language, s))])));
        lines.push((Tone::Fault, parts.join(" ")));
    }
    if view.phase != Phase::Desktop {
        let tone = match view.cause {
            Cause::Fine => Tone::Good,
            Cause::Looking | Cause::Slow => Tone::Note,
            _ => Tone::Fault,
        };
        lines.push((tone, t(&format!("cause_{}", word(view.cause)), &[]).unwrap_or_default()));
    }
    lines.extend(enrolling(view, language));
    lines.extend(called(view, language, call.as_deref()));
    if view.phase == Phase::SignIn {
        lines.push((Tone::Plain, t("call_hint", &[]).unwrap_or_default()));
    }
    lines.retain(|(_, l)| !l.is_empty());
    lines
}

/// The digits for the console, or why this computer was refused.
fn enrolling(view: &View, language: &str) -> Vec<(Tone, String)> {
    let t = |key: &str, values: &[(&str, &str)]| text(language, key, values).unwrap_or_default();
    match &view.enrolling {
        None => Vec::new(),
        Some(Enrolling::Waits { digits }) => {
            vec![(Tone::Title, format!("{}: {digits}", t("enrol_title", &[]))), (Tone::Note, t("enrol_waits", &[]))]
        }
        Some(Enrolling::Refused { code, reason }) => {
            vec![(Tone::Fault, format!("{} ({code})", t(&format!("enrol_{code}"), &[("why", reason)])))]
        }
    }
}

/// The code to read out, and how far support is.
fn called(view: &View, language: &str, phone: Option<&str>) -> Vec<(Tone, String)> {
    let Some(c) = &view.call else { return Vec::new() };
    let t = |key: &str, values: &[(&str, &str)]| text(language, key, values);
    let by = c.by.as_deref().unwrap_or_default();
    let said = [t(&format!("call_{}", c.state), &[("by", by)]), phone.map(str::to_owned)];
    let said = said.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let code =
        c.code.split_at_checked(3).map(|(a, b)| format!("{}: {a} {b}", t("call_title", &[]).unwrap_or_default()));
    [code.map(|code| (Tone::Title, code)), Some((Tone::Note, said))].into_iter().flatten().collect()
}

/// The real step, the place in line, the estimate.
fn step(view: &View, language: &str, phase: &str) -> String {
    let t = |key: &str, values: &[(&str, &str)]| text(language, key, values);
    let Some(s) = &view.step else { return t(&format!("phase_{phase}_more"), &[]).unwrap_or_default() };
    let mut parts = vec![t(&format!("step_{}", s.code), &[]).or_else(|| t("step_other", &[])).unwrap_or_default()];
    parts.extend(s.position.and_then(|n| t("position", &[("n", &n.to_string())])));
    parts.extend(s.estimate_s.and_then(|e| t("estimate", &[("time", &span(language, e))])));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::view::Notice;

    fn plain(view: &View, language: &str) -> String {
        say(view, language).into_iter().map(|(_, l)| l).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_end_is_said_with_its_code_and_whom_to_call() {
        let notice = Some(Notice::new("over_4002"));
        let view = View { phase: Phase::Left, notice, phone: "024 3825 3536".into(), ..View::default() };
        let said = plain(&view, "vi");
        assert!(said.contains("Máy chủ chứa") && said.contains("(V-4002)") && said.contains("024 3825 3536"), "{said}");
        let said = plain(&View { phase: Phase::Lost, gateway_lost: true, ..view }, "en");
        assert!(said.contains("(G-503)") && said.contains("The line is fine"), "{said}");
    }

    #[test]
    fn a_code_is_read_out_in_two_groups() {
        let call = super::super::call::Called { code: "203122".into(), state: "queued".into(), by: None };
        let view = View { call: Some(call), phone: "024 3825 3536".into(), ..View::default() };
        let said = plain(&view, "vi");
        assert!(said.contains("203 122") && said.contains("Mã vẫn dùng được ngay. Cần hỗ trợ, gọi 024"), "{said}");
        assert!(said.contains("Gõ ? rồi Enter"), "{said}");
    }

    #[test]
    fn nothing_moves_the_cursor_and_a_narrow_terminal_is_kept_to() {
        let lines = wrap("một hai\x1b[2J babonnamsaubaytam", 8);
        assert_eq!(lines, ["một", "hai[2J", "babonnam", "saubayta", "m"]);
        assert_eq!(wrap("", 8), [""]);
    }
}
