use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::accounts::Permission;

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA\
                    $bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";

/// `HASH` stands for a hash in the texts of these tests.
fn parse(text: &str) -> Result<Users, UsersError> {
    Users::parse(&text.replace("HASH", HASH))
}

#[track_caller]
fn refused(text: &str, line: usize, why: &str) {
    let error = parse(text).expect_err(text);
    let said = error.to_string();
    assert_eq!(error.line(), Some(line), "{text}\n{said}");
    assert!(said.starts_with(&format!("line {line}: ")), "{said}");
    assert!(said.contains(why), "{text}\n{said}");
    assert!(!said.contains('\n'), "{said}");
    assert!(!said.contains("bQk8UB"), "a hash is shown: {said}");
}

#[test]
fn everything_that_can_be_said_of_a_user() {
    let users = parse(
        r#"
        # who may come in
        [users.anna]
        password = "HASH"
        home = "/people/anna"
        permissions = ["list", "read", "append"]
        quota_bytes = "10GiB"
        quota_files = 1000
        rate_bytes_per_s = "20MiB"
        session_rate_bytes_per_s = 5_000_000
        networks = ["192.0.2.0/24", "::1"]
        locked = true

        [users."Ben Юнг"]
        password = "HASH"
        "#,
    )
    .unwrap();
    assert_eq!(users.len(), 2);
    let anna = users.find(b"anna").unwrap();
    assert_eq!(anna.hash.as_str(), HASH);
    assert_eq!(anna.home.as_bytes(), b"/people/anna");
    assert_eq!(anna.permissions.to_string(), "list,read,append");
    let quota = Amount {
        bytes: 10 << 30,
        files: 1000,
    };
    assert_eq!(anna.quota, quota);
    assert_eq!(anna.rate_bytes_per_s, Some(20 << 20));
    assert_eq!(anna.session_rate_bytes_per_s, Some(5_000_000));
    assert_eq!(anna.networks.len(), 2);
    assert!(anna.locked);

    let ben = users.find("Ben Юнг".as_bytes()).unwrap();
    assert!(ben.home.is_root() && ben.permissions.allow(Permission::Chmod));
    assert_eq!((ben.quota, ben.rate_bytes_per_s), (Amount::MAX, None));
    assert!(ben.networks.is_empty() && !ben.locked);

    for name in [&b"Anna"[..], b"ann", b"anna ", b"anna\0", b"\xff", b""] {
        assert!(users.find(name).is_none(), "{name:?}");
    }
    let names: Vec<&str> = users.sorted().iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names, ["Ben Юнг", "anna"]);
    assert!(users.warnings().is_empty());
}

#[test]
fn permissions_in_each_way_to_write_them() {
    for (written, means) in [
        (r#""all""#, "all"),
        (r#""read-only""#, "read-only"),
        (r#""list, write""#, "list,write"),
        (r#"["read-only", "mkdir"]"#, "list,read,mkdir"),
        ("[]", "none"),
    ] {
        let text = format!("[users.a]\npassword = \"HASH\"\npermissions = {written}");
        let users = parse(&text).unwrap();
        assert_eq!(users.find(b"a").unwrap().permissions.to_string(), means);
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let user = |line: &str| format!("\n[users.anna]\npassword = \"HASH\"\n{line}\n");
    for (line, why) in [
        (
            "qouta_bytes = 5",
            "unknown field `qouta_bytes`, expected one of",
        ),
        ("home = \"/a/../b\"", "no .."),
        ("home = 5", "expected a string"),
        (
            "permissions = [\"list\", \"reed\"]",
            "\"reed\" is no permission",
        ),
        (
            "permissions = \"everything\"",
            "\"everything\" is no permission",
        ),
        ("permissions = 7", "a list of permissions"),
        ("quota_bytes = \"10 apples\"", "\"10 apples\" is no size"),
        ("quota_bytes = -1", "negative"),
        ("quota_bytes = 1.5", "number of bytes"),
        ("quota_files = -1", "-1"),
        ("rate_bytes_per_s = 0", "a rate of 0"),
        ("networks = []", "lets nobody in"),
        ("networks = [\"192.0.2.1/24\"]", "did you mean 192.0.2.0/24"),
        ("networks = \"::1\"", "sequence"),
        ("locked = \"no\"", "boolean"),
        ("password = \"HASH\"", "duplicate"),
        ("home =", ""),
        ("= \"x\"", ""),
        ("home = \"/a", ""),
    ] {
        refused(&user(line), 4, why);
    }
}

#[test]
fn hashes_are_checked_at_load() {
    for (hash, why) in [
        ("", "the password hash is empty"),
        ("hunter2", "the password hash is not as"),
        (
            "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuA",
            "256 MiB",
        ),
        (
            "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuA",
            "is not Argon2id",
        ),
    ] {
        refused(&format!("[users.anna]\n\npassword = \"{hash}\""), 3, why);
    }
    refused("[users.anna]\npassword = 5", 2, "expected a string");
    refused(
        "\n[users.anna]\nhome = \"/\"",
        2,
        "missing field `password`",
    );
}

#[test]
fn names_are_checked_at_load() {
    let anna = "[users.anna]\npassword = \"HASH\"\n";
    refused(&format!("{anna}[users.anna]\n"), 3, "duplicate key");
    refused(
        &format!("{anna}[users.FTP]\npassword = \"HASH\""),
        3,
        "anonymous",
    );
    refused(
        &format!("{anna}[users.\"\"]\npassword = \"HASH\""),
        3,
        "not empty",
    );
    refused(
        &format!("{anna}[users.\"a\\u001b[31m\"]\npassword = \"HASH\""),
        3,
        "control",
    );
    let long = "x".repeat(65);
    refused(
        &format!("{anna}[users.{long}]\npassword = \"HASH\""),
        3,
        "64 bytes",
    );
    refused(
        &format!("{anna}[user.ben]\npassword = \"HASH\""),
        3,
        "unknown field `user`",
    );
}

#[test]
fn an_empty_file_has_no_users() {
    for text in ["", "# nobody yet\n", "[users]\n"] {
        let users = parse(text).unwrap();
        assert!(users.is_empty());
        assert_eq!(users.decoy().cost(), Cost::DEFAULT);
    }
}

#[test]
fn the_decoy_costs_what_most_users_cost() {
    let user = |name: &str, cost: &str| {
        format!("[users.{name}]\npassword = \"HASH\"\n").replace("HASH", &HASH.replace("t=1", cost))
    };
    let two = user("a", "t=3") + &user("b", "t=3");
    let users = Users::parse(&two).unwrap();
    assert_eq!(users.decoy().cost().passes, 3);
    assert!(users.warnings().is_empty());
    let users = Users::parse(&(two + &user("c", "t=4"))).unwrap();
    assert_eq!(users.decoy().cost().passes, 3);
    assert!(users.warnings()[0].contains("differ in cost"));
}

#[test]
fn where_users_may_come_from() {
    let with = |line: &str| {
        let users = parse(&format!("[users.a]\npassword = \"HASH\"\n{line}")).unwrap();
        User::clone(users.find(b"a").unwrap())
    };
    let (here, there) = (
        "192.0.2.7".parse().unwrap(),
        "198.51.100.7".parse().unwrap(),
    );
    let anywhere = with("");
    assert!(anywhere.may_come_from(here) && anywhere.may_come_from(there));
    let near = with("networks = [\"::1\", \"192.0.2.0/24\"]");
    assert!(near.may_come_from(here) && !near.may_come_from(there));
    assert!(near.may_come_from("::ffff:192.0.2.9".parse().unwrap()));
    assert!(!with("locked = true").may_come_from(here));
}

#[test]
fn files_are_loaded_with_their_name_in_errors_and_their_mode_in_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let error = Users::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("users.toml: there is no such file; `hauld user add`"),
        "{error}"
    );
    assert!(
        Users::load(dir.path())
            .unwrap_err()
            .to_string()
            .contains("no file")
    );

    let write = |text: &[u8], mode: u32| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Users::load(&path)
    };
    let good = format!("[users.a]\npassword = \"{HASH}\"\n");
    assert!(write(good.as_bytes(), 0o640).unwrap().warnings().is_empty());
    let warned = write(good.as_bytes(), 0o644).unwrap();
    assert!(warned.warnings()[0].contains("may read"));
    let error = write(good.as_bytes(), 0o666).unwrap_err().to_string();
    assert!(error.contains("anybody may write it"), "{error}");
    let error = write(b"\n\n# \xff", 0o600).unwrap_err().to_string();
    assert!(
        error.ends_with("users.toml: line 3: this is not UTF-8"),
        "{error}"
    );
}
