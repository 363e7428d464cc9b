use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

/// Two hashes of one length, so that texts can be compared.
const OLD: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA\
                   $bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
const NEW: &str = "$argon2id$v=19$m=8,t=1,p=1$b3RoZXJzYWx0b3RoZXJzYQ\
                   $bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn hash(text: &str) -> Hash {
    Hash::parse(text).unwrap()
}

/// A users file in a directory of its own. `OLD` and `NEW` stand for the hashes in its text.
struct Case {
    dir: TempDir,
}

impl Case {
    fn new(text: &str) -> Case {
        let case = Case {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(case.path(), text.replace("OLD", OLD)).unwrap();
        case.set_mode(0o600);
        case
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("users.toml")
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.path(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(&self) -> u32 {
        fs::metadata(self.path()).unwrap().mode() & 0o7777
    }

    fn text(&self) -> String {
        let text = fs::read_to_string(self.path()).unwrap();
        text.replace(OLD, "OLD").replace(NEW, "NEW")
    }

    #[track_caller]
    fn edit(&self, edit: impl FnOnce(&mut UsersFile) -> Result<(), UsersError>) {
        let mut file = UsersFile::open_or_new(&self.path()).unwrap();
        edit(&mut file).unwrap();
        file.save().unwrap();
        let left: Vec<_> = fs::read_dir(self.dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

const TWO: &str = r#"# The users of the house.

# Anna from the first floor
[users.anna]
password = "OLD" # from her mail
home   = "/anna"
quota_bytes = "10GiB"

# Ben pays
[users.ben]   # since 2024
password = "OLD"
permissions = [
    "list",  # sees
    "read",
]
# the end
"#;

#[test]
fn what_is_not_changed_stays_as_it_was_written() {
    let case = Case::new(TWO);
    case.edit(|file| file.set_password(&name("anna"), &hash(NEW)));
    let anna = TWO.replacen("OLD", "NEW", 1);
    assert_eq!(case.text(), anna);

    case.edit(|file| {
        let changes = Changes {
            home: Some("/a/b".parse().unwrap()),
            quota_bytes: Some(Limit::None),
            locked: Some(true),
            ..Changes::default()
        };
        file.change(&name("anna"), &changes)
    });
    let changed = anna
        .replace("\"/anna\"", "\"/a/b\"")
        .replace("quota_bytes = \"10GiB\"", "locked = true");
    assert_eq!(case.text(), changed);
}

#[test]
fn a_user_is_added_at_the_end() {
    let case = Case::new(TWO);
    case.edit(|file| {
        let about = Changes {
            home: Some("/cleo".parse().unwrap()),
            permissions: Some("list,write".parse().unwrap()),
            quota_bytes: Some(Limit::Of(5 << 20)),
            quota_files: Some(Limit::Of(7)),
            rate_bytes_per_s: Some(Limit::Of(1500)),
            session_rate_bytes_per_s: Some(Limit::Of(1 << 10)),
            networks: Some(vec!["::1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]),
            certificates: Some(vec![Fingerprint::of(&[0xAB])]),
            locked: Some(false),
        };
        file.add(&name("Cleo Ю."), &hash(NEW), &about)
    });
    let cleo = r#"
[users."Cleo Ю."]
password = "NEW"
home = "/cleo"
permissions = ["list", "write"]
quota_bytes = "5MiB"
rate_bytes_per_s = "1500"
session_rate_bytes_per_s = "1KiB"
quota_files = 7
networks = ["::1", "10.0.0.0/8"]
certificates = ["08:7D:80:F7:F1:82:DD:44:F1:84:AA:86:CA:34:48:88:53:EB:CC:04:F0:C6:0D:52:94:91:9A:46:6B:46:38:31"]
"#;
    let (before, end) = TWO.split_at(TWO.find("# the end").unwrap());
    assert_eq!(case.text(), format!("{before}{cleo}{end}"));
    let users = Users::load(&case.path()).unwrap();
    assert_eq!(users.find("Cleo Ю.".as_bytes()).unwrap().quota.files, 7);
}

#[test]
fn a_new_file_has_a_head_and_nobody_else_can_read_it() {
    let case = Case::new("");
    fs::remove_file(case.path()).unwrap();
    assert!(UsersFile::open(&case.path()).is_err());
    case.edit(|file| file.add(&name("anna"), &hash(NEW), &Changes::default()));
    let anna = "[users.anna]\npassword = \"NEW\"\nhome = \"/\"\npermissions = \"all\"\n";
    assert_eq!(case.text(), format!("{HEAD}{anna}"));
    assert_eq!(case.mode(), 0o600);

    // The head is about the file: it stays when its first user goes.
    case.edit(|file| file.add(&name("ben"), &hash(NEW), &Changes::default()));
    case.edit(|file| file.remove(&name("anna")));
    assert_eq!(
        case.text(),
        format!("{HEAD}{}", anna.replace("anna", "ben"))
    );
    case.edit(|file| file.remove(&name("ben")));
    assert_eq!(case.text(), HEAD);
    case.edit(|file| file.add(&name("anna"), &hash(NEW), &Changes::default()));
    assert_eq!(case.text().matches("The users of hauld").count(), 1);
}

#[test]
fn a_user_is_removed_with_the_comment_above() {
    let case = Case::new(TWO);
    case.edit(|file| file.remove(&name("anna")));
    let text = case.text();
    assert!(
        text.starts_with("# The users of the house.\n\n# Ben pays\n[users.ben]"),
        "{text}"
    );
    assert!(!text.contains("first floor"), "{text}");
    case.edit(|file| file.remove(&name("ben")));
    assert_eq!(case.text(), "# The users of the house.\n\n# the end\n");
}

/// TOML has several ways to write the same users.
#[test]
fn each_way_to_write_a_user_can_be_edited() {
    for text in [
        "[users]\nanna = { password = \"OLD\" }\n",
        "users = { anna = { password = \"OLD\" } }\n",
        "users.anna.password = \"OLD\"\n",
        "[users]\n[users.anna]\npassword = 'OLD'\n",
    ] {
        let case = Case::new(text);
        case.edit(|file| file.set_password(&name("anna"), &hash(NEW)));
        case.edit(|file| file.add(&name("ben"), &hash(OLD), &Changes::default()));
        let users = Users::load(&case.path()).unwrap();
        assert_eq!(users.find(b"anna").unwrap().hash.as_str(), NEW, "{text}");
        assert_eq!(users.find(b"ben").unwrap().hash.as_str(), OLD, "{text}");
        case.edit(|file| file.remove(&name("anna")));
        let users = Users::load(&case.path()).unwrap();
        assert!(users.find(b"anna").is_none() && users.len() == 1, "{text}");
    }
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_written() {
    let case = Case::new(TWO);
    let mut file = UsersFile::open(&case.path()).unwrap();
    let none = Changes::default();
    let said = file
        .add(&name("anna"), &hash(NEW), &none)
        .unwrap_err()
        .to_string();
    assert!(
        said.ends_with("users.toml: there is a user anna already"),
        "{said}"
    );
    for said in [
        file.remove(&name("cleo")).unwrap_err(),
        file.change(&name("cleo"), &none).unwrap_err(),
        file.set_password(&name("Anna"), &hash(NEW)).unwrap_err(),
    ] {
        assert!(said.to_string().contains("there is no user"), "{said}");
    }
    let changes = Changes {
        rate_bytes_per_s: Some(Limit::Of(0)),
        ..none
    };
    file.change(&name("anna"), &changes).unwrap();
    let said = file.save().unwrap_err().to_string();
    assert!(said.contains("a rate of 0"), "{said}");
    assert_eq!(case.text(), TWO);

    let case = Case::new("[users.anna]\nqouta = 5\n");
    let said = UsersFile::open_or_new(&case.path())
        .unwrap_err()
        .to_string();
    assert!(said.contains("line 2"), "{said}");
    let nowhere = case.dir.path().join("none/users.toml");
    assert!(UsersFile::open_or_new(&nowhere).is_err());
}

#[test]
fn the_mode_is_closed_to_all_but_a_group_that_was_meant() {
    for (before, after) in [
        (0o644, 0o600),
        (0o640, 0o640),
        (0o660, 0o640),
        (0o400, 0o600),
    ] {
        let case = Case::new(TWO);
        case.set_mode(before);
        case.edit(|file| file.remove(&name("ben")));
        assert_eq!(case.mode(), after, "{before:o}");
    }
}

#[test]
fn a_symbolic_link_stays_one() {
    let case = Case::new(TWO);
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link.toml");
    std::os::unix::fs::symlink(case.path(), &link).unwrap();
    let mut file = UsersFile::open(&link).unwrap();
    file.remove(&name("ben")).unwrap();
    file.save().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(!case.text().contains("[users.ben]"));
}
