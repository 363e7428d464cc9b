//! Who may know whom, as tests over the source text. What the code does not name it cannot depend
//! on. Comments and tests are left aside.

use std::fs;
use std::path::{Path, PathBuf};

use haul::session::verbs::VERBS;

const LINES_MAX: usize = 650;
const LINES_WANTED: usize = 500;

/// Which modules each may name.
const EDGES: [(&str, &[&str]); 14] = [
    ("proto", &[]),
    ("storage", &["proto"]),
    // For `VirtualPath`: a home is one.
    ("accounts", &["proto", "storage", "fingerprint", "text"]),
    ("config", &["accounts"]),
    (
        "session",
        &["proto", "storage", "accounts", "config", "logging"],
    ),
    (
        "server",
        &[
            "session",
            "proto",
            "storage",
            "accounts",
            "config",
            "fingerprint",
            "text",
            "sealing",
            "workers",
        ],
    ),
    ("logging", &["text"]),
    ("workers", &[]),
    ("text", &[]),
    ("shell", &[]),
    ("fingerprint", &[]),
    // For both ends of TLS, which must not know each other.
    ("sealing", &[]),
    ("client", &["proto", "fingerprint", "text", "sealing"]),
    ("bench", &["proto", "client", "text", "sealing"]),
];

struct Source {
    /// Relative to `src`.
    path: String,
    lines: usize,
    /// Without comments and tests.
    code: String,
}

impl Source {
    /// `session` for `session/mod.rs` and for `session.rs`; `bin` for programs.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        let between = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        self.code.split(between)
    }
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(&src).unwrap().to_str().unwrap();
        Source {
            path: relative.to_string(),
            lines: text.lines().count(),
            code: code_of(&text),
        }
    };
    let found: Vec<Source> = paths.into_iter().map(read).collect();
    assert!(found.len() > 20, "where is the source?");
    found
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            paths.push(path);
        }
    }
}

/// Drops comments, and what stands behind `#[cfg(test)]`: one line, or a block to its end at the
/// left margin.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            if lines.next().is_some_and(|item| item.ends_with('{')) {
                lines.by_ref().find(|line| *line == "}");
            }
            continue;
        }
        if line.trim_start().starts_with("//") {
            continue;
        }
        code.push_str(line.split(" // ").next().unwrap());
        code.push('\n');
    }
    code
}

fn in_modules(modules: &[&str]) -> Vec<Source> {
    let mut found = sources();
    found.retain(|source| modules.contains(&source.module()));
    for module in modules {
        let has_files = found.iter().any(|source| source.module() == *module);
        assert!(has_files, "where is {module}?");
    }
    found
}

#[test]
fn code_is_told_from_comments_and_tests() {
    let text =
        "a // b\n// c\n    /// d\n#[cfg(test)]\nmod tests;\ne\n#[cfg(test)]\nmod t {\n f\n}\ng\n";
    assert_eq!(code_of(text), "a\ne\ng\n");
}

#[test]
fn the_inner_modules_know_no_socket_no_thread_and_no_clock() {
    const WORDS: [&str; 6] = [
        "mio",
        "rustls",
        "socket2",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
    ];
    const TEXTS: [&str; 5] = [
        "std::thread",
        "thread::spawn",
        "Instant::now",
        "SystemTime::now",
        "UnixStream",
    ];
    for source in in_modules(&["proto", "session", "storage", "accounts"]) {
        for word in WORDS {
            assert!(
                !source.words().any(|it| it == word),
                "{} names {word}",
                source.path
            );
        }
        for text in TEXTS {
            assert!(!source.code.contains(text), "{} names {text}", source.path);
        }
    }
}

#[test]
fn the_session_knows_no_token() {
    for source in in_modules(&["session"]) {
        assert!(!source.words().any(|it| it == "Token"), "{}", source.path);
    }
}

#[test]
fn the_server_names_no_verb() {
    for source in in_modules(&["server"]) {
        for literal in source.code.split('"').skip(1).step_by(2) {
            let mut words = literal.split(|c: char| !c.is_ascii_alphanumeric() && c != '@');
            let verb = words.find(|word| VERBS.iter().any(|verb| verb.name == *word));
            assert_eq!(verb, None, "{}: \"{literal}\"", source.path);
        }
    }
}

/// The modules behind each `crate::`, also those of `crate::{a, b}`.
fn named_modules(code: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_string()
    };
    let mut found = Vec::new();
    for (at, name) in code.match_indices("crate::") {
        let rest = &code[at + name.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let (mut depth, mut begins) = (1, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                c if begins && c.is_ascii_alphabetic() => {
                    found.push(word(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[test]
fn modules_are_found_in_imports() {
    let code = "use crate::a::{B, c};\nuse crate::{d::{E, F}, g};\nfn x(y: crate::h::I)";
    assert_eq!(named_modules(code), ["a", "d", "g", "h"]);
}

#[test]
fn imports_go_one_way() {
    for source in sources() {
        let module = source.module();
        if matches!(module, "lib" | "bin") {
            continue;
        }
        let edges = EDGES.iter().find(|(from, _)| *from == module);
        let Some((_, allowed)) = edges else {
            panic!("which modules may {module} name? Say so in this test");
        };
        for named in named_modules(&source.code) {
            assert!(
                named == module || allowed.contains(&named.as_str()),
                "{} names {named}, and {module} may name only {allowed:?}",
                source.path
            );
        }
    }
}

#[test]
fn nothing_is_unsafe() {
    for source in sources() {
        assert!(!source.words().any(|it| it == "unsafe"), "{}", source.path);
    }
}

/// What a peer sends, and what a disk does, is never a reason to panic.
#[test]
fn nothing_panics_on_purpose() {
    const ENDINGS: [&str; 5] = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "todo!(",
        "unimplemented!(",
    ];
    for source in in_modules(&["proto", "session", "storage", "accounts", "server"]) {
        for (at, line) in source.code.lines().enumerate() {
            for ending in ENDINGS {
                assert!(
                    !line.contains(ending),
                    "{}, code line {at}: {line}",
                    source.path
                );
            }
        }
    }
}

#[test]
fn files_are_short() {
    let mut long: Vec<Source> = sources();
    long.retain(|source| source.lines > LINES_WANTED);
    let list: Vec<String> = long
        .iter()
        .map(|source| format!("{:5} {}", source.lines, source.path))
        .collect();
    let list = list.join("\n");
    let too_long = long.iter().any(|source| source.lines > LINES_MAX);
    assert!(!too_long, "over {LINES_MAX} lines, of these:\n{list}");
}
