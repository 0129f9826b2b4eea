//! What an office tells of its silence once it is back, and how that changes the cause.

use super::{Cause, Confidence, Evidence};

/// One computer's account of the time in which nobody heard it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// It was started anew meanwhile.
    pub rebooted: bool,
    /// It ran on battery meanwhile, or ended without a clean shutdown.
    pub power_lost: bool,
    /// It ran, and its office's router answered it: the fault lay behind the router.
    pub router_answered: bool,
    /// It ran, and its office's router did not answer.
    pub router_silent: bool,
}

/// What the accounts of a site's computers make of the silence, if they say more than was known.
///
/// Power explains an office whose computers all came up anew without having been shut down; a router that
/// answered all the time explains a line; one that did not, the router or its power.
#[must_use]
pub fn judged_again(was: Cause, accounts: &[Account]) -> Option<(Cause, Confidence, Vec<Evidence>)> {
    if !matches!(was, Cause::SiteLine | Cause::SitePower | Cause::Crashed | Cause::EndpointPower) || accounts.is_empty()
    {
        return None;
    }
    let count = |f: fn(&Account) -> bool| accounts.iter().filter(|a| f(a)).count();
    let all = accounts.len();
    let evidence = |code: &str, n: usize| vec![Evidence::new(code).with("count", n).with("of", all)];
    let single = matches!(was, Cause::Crashed | Cause::EndpointPower);
    let dark = count(|a| a.rebooted && a.power_lost);
    let found = if dark == all {
        let cause = if single { Cause::EndpointPower } else { Cause::SitePower };
        (cause, Confidence::High, evidence("backlog_power_lost", dark))
    } else if single {
        return None;
    } else if let answered @ 1.. = count(|a| a.router_answered) {
        (Cause::SiteLine, Confidence::High, evidence("backlog_router_answered", answered))
    } else if let silent @ 1.. = count(|a| a.router_silent) {
        (Cause::SiteLine, Confidence::Medium, evidence("backlog_router_silent", silent))
    } else {
        return None;
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DARK: Account = Account { rebooted: true, power_lost: true, router_answered: false, router_silent: false };
    const CUT: Account = Account { rebooted: false, power_lost: false, router_answered: true, router_silent: false };

    #[test]
    fn it_was_power_and_not_the_line() {
        let (cause, confidence, evidence) = judged_again(Cause::SiteLine, &[DARK, DARK]).unwrap();
        assert_eq!((cause, confidence), (Cause::SitePower, Confidence::High));
        assert_eq!(evidence[0].params["count"], "2");
    }

    #[test]
    fn one_computer_that_ran_on_says_that_it_was_the_line() {
        assert_eq!(judged_again(Cause::SitePower, &[DARK, CUT]).unwrap().0, Cause::SiteLine);
        assert_eq!(judged_again(Cause::SiteLine, &[CUT]).unwrap().1, Confidence::High);
    }

    #[test]
    fn nothing_new_changes_nothing() {
        assert_eq!(judged_again(Cause::SiteLine, &[]), None);
        assert_eq!(judged_again(Cause::SiteLine, &[Account::default()]), None);
        assert_eq!(judged_again(Cause::Service, &[DARK]), None);
    }
}
