//! Deadlines, in virtual time: when a session is to be ended for taking too long, and when its
//! clock stands still.

use std::time::Duration;

use haul::accounts::Anonymous;
use haul::session::Input;

use crate::shell::{Client, client};

const SECOND: Duration = Duration::from_secs(1);

impl Client {
    /// How long from now until the session wants to be told that time is up.
    fn time_left(&self) -> Option<Duration> {
        let deadline = self.shell.session.deadline(&self.shell.config);
        deadline.map(|at| at.saturating_duration_since(self.shell.now))
    }

    fn pass_time(&mut self, time: Duration) {
        self.shell.now += time;
    }
}

#[test]
fn a_stranger_has_the_time_of_a_login() {
    let mut client = client();
    let limit = client.shell.config.limits.login_timeout;
    assert_eq!(client.time_left(), Some(limit));
    client.pass_time(limit - SECOND);
    for command in ["NOOP", "USER anonymous", "USER anonymous"] {
        client.command(command);
        assert_eq!(client.time_left(), Some(SECOND), "{command}");
    }
    client.pass_time(SECOND);
    client.shell.tell(Input::TimedOut);
    assert_eq!(client.codes(), [421]);
    assert!(client.shell.closed);
}

/// `USER` long after the first login used to meet a deadline that had passed already.
#[test]
fn another_login_gets_its_own_time() {
    for again in ["USER anonymous", "REIN"] {
        let mut client = client();
        let limits = client.shell.config.limits.clone();
        client.log_in();
        client.pass_time(limits.login_timeout * 10);
        client.command(again);
        assert_eq!(client.time_left(), Some(limits.login_timeout), "{again}");
        client.pass_time(SECOND);
        client.command("USER anonymous");
        assert_eq!(client.time_left(), Some(limits.login_timeout - SECOND));
        client.command("PASS x");
        assert_eq!(client.time_left(), Some(limits.idle_timeout));
    }
}

#[test]
fn every_command_begins_the_idle_time_again_but_noop_only_for_a_while() {
    let mut client = client();
    client.log_in();
    let limits = client.shell.config.limits.clone();
    let step = limits.idle_timeout / 3;
    for _ in 0..20 {
        client.pass_time(step);
        client.command("PWD");
        assert_eq!(client.time_left(), Some(limits.idle_timeout));
    }
    let mut passed = Duration::ZERO;
    while passed + limits.idle_timeout <= limits.noop_keeps {
        assert_eq!(client.time_left(), Some(limits.idle_timeout));
        client.pass_time(step);
        passed += step;
        client.command("NOOP");
    }
    assert!(client.time_left() < Some(limits.idle_timeout));
    client.pass_time(client.time_left().unwrap());
    assert!(passed < limits.noop_keeps);
    client.shell.tell(Input::TimedOut);
    assert_eq!(client.codes(), [421]);
}

#[test]
fn site_idle_changes_the_idle_time() {
    let mut client = client();
    client.log_in();
    client.command("SITE IDLE 60");
    assert_eq!(client.time_left(), Some(60 * SECOND));
}

#[test]
fn the_idle_clock_stands_still_while_something_is_owed() {
    let mut client = client();
    client.log_in();
    let idle = client.shell.config.limits.idle_timeout;
    for (line, end) in [
        ("UPLOAD 5 f\r\n", "12345"),
        ("EPSV\r\nSTOR f\r\n", ""),
        ("UPLOAD 5+ /absent/f\r\n123", "45"),
    ] {
        client.shell.arrive(line.as_bytes());
        client.shell.settle();
        assert_eq!(client.time_left(), None, "{line}");
        client.pass_time(idle * 3);
        client.shell.arrive(end.as_bytes());
        if end.is_empty() {
            client.shell.data().finished = true;
        }
        client.shell.settle();
        assert_eq!(client.time_left(), Some(idle), "{line}");
    }
}

#[test]
fn a_clock_that_goes_back_ends_nothing() {
    let mut client = client();
    client.log_in();
    let idle = client.shell.config.limits.idle_timeout;
    client.pass_time(idle / 2);
    client.command("PWD");
    client.shell.now -= idle / 2;
    client.command("PWD");
    assert!(client.time_left() >= Some(idle));
}

#[test]
fn a_server_that_stops_ends_idle_sessions_at_once_and_others_behind_their_transfer() {
    let mut idle = client();
    idle.shell.tell(Input::ShuttingDown);
    assert_eq!(idle.codes(), [421]);
    assert!(idle.shell.closed);

    let mut busy = client();
    busy.log_in();
    busy.shell.arrive(b"UPLOAD 5 f\r\n");
    busy.shell.settle();
    busy.shell.tell(Input::ShuttingDown);
    assert_eq!(busy.codes(), [150]);
    busy.shell.arrive(b"12345");
    busy.shell.settle();
    assert_eq!(busy.codes(), [226, 421]);
    assert!(busy.shell.closed);
}

fn refusing() -> Client {
    let mut client = client();
    client.shell.config.anonymous = Anonymous::None;
    client
}

#[test]
fn a01_a_wrong_password_is_answered_late_and_the_next_one_later() {
    let mut client = refusing();
    let delay = client.shell.config.limits.wrong_password_delay;
    for (n, code) in [(1, 530), (2, 530), (3, 421)] {
        client.command("USER anonymous");
        assert!(client.command("PASS x").is_empty());
        assert_eq!(client.time_left(), Some(n * delay));
        // What comes meanwhile waits where it is, and too early is too early.
        assert!(client.command("NOOP").is_empty());
        assert!(!client.shell.session.wants_input(&client.shell.config));
        client.pass_time(n * delay);
        client.shell.tell(Input::TimedOut);
        assert_eq!(client.codes(), [code]);
        client.shell.settle();
        let behind: &[u16] = if code == 530 { &[200] } else { &[] };
        assert_eq!(client.codes(), behind);
    }
    assert!(client.shell.closed);
}

#[test]
fn the_time_for_a_login_does_not_wait_for_a_late_answer() {
    let mut client = refusing();
    let limit = client.shell.config.limits.login_timeout;
    client.pass_time(limit - SECOND / 2);
    client.command("USER anonymous");
    assert!(client.command("PASS x").is_empty());
    assert_eq!(client.time_left(), Some(SECOND / 2));
    client.pass_time(SECOND / 2);
    client.shell.tell(Input::TimedOut);
    assert_eq!(client.codes(), [421]);
    assert!(client.shell.closed);
}

#[test]
fn r11_who_is_displaced_hears_it_whatever_it_waits_for() {
    for lines in [&[][..], &["USER anonymous"], &["USER anonymous", "PASS x"]] {
        let mut client = refusing();
        for line in lines {
            client.command(line);
        }
        client.shell.tell(Input::Displaced);
        assert_eq!(client.codes(), [421]);
        assert!(client.shell.closed);
    }
}

#[test]
fn c11_a_wall_clock_that_jumps_ends_no_session_and_gives_none_more_time() {
    const DAY_S: i64 = 24 * 60 * 60;
    for jump in [-365 * DAY_S, -DAY_S, -1, 1, DAY_S, 365 * DAY_S] {
        let mut client = client();
        let limits = client.shell.config.limits.clone();
        client.shell.wall_s += jump;
        client.command("USER anonymous");
        assert_eq!(client.time_left(), Some(limits.login_timeout), "{jump}");
        client.command("PASS x");
        client.pass_time(SECOND);
        client.shell.wall_s -= jump;
        assert_eq!(client.time_left(), Some(limits.idle_timeout - SECOND));
        for command in ["NOOP", "EPSV", "UPLOAD 0+ f", "MLST f", "MDTM f"] {
            client.shell.wall_s += jump;
            assert!(client.command(command)[0] < 400, "{command}");
            client.shell.wall_s -= jump;
            assert_eq!(client.time_left(), Some(limits.idle_timeout), "{command}");
        }
    }
}
