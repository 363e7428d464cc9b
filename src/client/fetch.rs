//! Downloads of a plan: the small ones in a row, any other by itself.

use std::collections::VecDeque;
use std::ffi::OsString;

use super::connection::Connection;
use super::digest::{self, Asking};
use super::dir::Dir;
use super::error::{Error, shown};
use super::incoming::{self, Incoming, KEPT_BYTES_MIN, Version};
use super::local::{last_component, path_of};
use super::pipeline::{self, Bodies, Said, Wanted};
use super::progress::Progress;
use super::remains::has_remains;
use super::server::one_line;
use super::work::{Way, Work};
use super::{listing, resume, transfer};

/// The directory that the last file went to, since the next one mostly goes there too.
#[derive(Default)]
struct Places {
    last: Option<(Vec<u8>, Dir)>,
}

impl Places {
    /// The directory and the name of one file's copy.
    fn of(&mut self, work: &Work, at: u32) -> Result<(Dir, OsString), Error> {
        let Way::Down { target, .. } = &work.way else {
            return Err(Error::usage("it is no download"));
        };
        let item = work.item(at);
        let path = work.plan.local(item.pair, &item.path);
        let no_name = || Error::usage("its last component is no file name");
        let name = last_component(&path).ok_or_else(no_name)?;
        let above = &path[..path.len() - name.len()];
        let dir = match &self.last {
            Some((last, dir)) if last == above => dir.clone(),
            _ => target.made_below(above)?,
        };
        self.last = Some((above.to_vec(), dir.clone()));
        Ok((dir, path_of(name).into_os_string()))
    }

    /// One file has come: what is left of other attempts goes.
    fn tidy(&mut self, work: &Work, at: u32) {
        // It was there a moment ago.
        if let Ok((dir, name)) = self.of(work, at)
            && let Some((above, _)) = &self.last
        {
            work.remains.clear(&dir, above, &name, work.is_again(at));
        }
    }
}

fn replaces(work: &Work) -> bool {
    matches!(work.way, Way::Down { replaces: true, .. })
}

/// All small files, asked for without waiting.
///
/// # Errors
/// The connection broke; what did not come is in the queue again.
pub fn small(work: &Work, c: &mut Connection) -> Result<(), Error> {
    let asking = match work.options.verify {
        true => Some(digest::asking(c)?.ok_or_else(digest::no_digest)?),
        false => None,
    };
    let mut places = Places::default();
    let mut owed = VecDeque::new();
    let mut next = |c: &mut Connection, out: &mut Vec<u8>| loop {
        let at = work.next_small()?;
        match lines(work, c, at, asking, &mut places, out) {
            Ok(Some(wanted)) => return Some(wanted),
            Ok(None) => work.is_large(at),
            Err(error) => work.failed(at, error),
        }
    };
    let mut bodies = Store {
        work,
        asking,
        places: Places::default(),
        refused: Vec::new(),
    };
    let came = pipeline::downloads(c, &mut owed, &mut next, &mut bodies);
    for (at, error) in bodies.refused {
        work.failed(at, explained(c, &work.remote(at), error));
    }
    came.inspect_err(|error| {
        work.put_back(owed.into_iter().map(|wanted| wanted.it), error);
    })
}

/// The lines for one file; `None`: an earlier attempt has left something of it.
fn lines(
    work: &Work,
    c: &Connection,
    at: u32,
    asking: Option<Asking>,
    places: &mut Places,
    out: &mut Vec<u8>,
) -> Result<Option<Wanted<u32>>, Error> {
    let remote = work.remote(at);
    one_line("the remote name", &remote)?;
    let (dir, name) = places.of(work, at)?;
    incoming::check_free(&dir, &name, replaces(work))?;
    let item = work.item(at);
    if !item.is_sized && has_remains(&dir, &name) {
        return Ok(None);
    }
    let asks_time = item.modify_s.is_none() && c.features.mdtm;
    let mut lines = Vec::new();
    if asks_time {
        lines.extend(c.line("MDTM", Some(&remote))?);
    }
    lines.extend(c.line("DOWNLOAD", Some(&remote))?);
    if let Some(asking) = asking {
        lines.extend(c.line(asking.verb, Some(&remote))?);
    }
    out.extend_from_slice(&lines);
    Ok(Some(Wanted {
        it: at,
        asks_time,
        asks_digest: asking.is_some(),
    }))
}

struct Store<'a> {
    work: &'a Work<'a>,
    asking: Option<Asking>,
    places: Places,
    /// Those that the user named, and the server refused.
    refused: Vec<(u32, Error)>,
}

impl Bodies<u32> for Store<'_> {
    type Sink = Incoming;

    fn begin(
        &mut self,
        &at: &u32,
        bytes: u64,
        modify_s: Option<i64>,
    ) -> Result<(Incoming, Progress), Error> {
        let work = self.work;
        let (dir, name) = self.places.of(work, at)?;
        let remote = work.remote(at);
        let version = work.item(at).modify_s.or(modify_s).map(|modify_s| Version {
            of: (&work.server, &remote),
            bytes,
            modify_s,
        });
        let mut incoming = Incoming::create(&dir, &name, replaces(work), version)?;
        if incoming.begins_at > 0 {
            // It has grown since it was listed, and all of it is coming.
            incoming.start_over()?;
        }
        let progress = work.report.board.file(&shown(&remote), bytes);
        Ok((incoming, progress))
    }

    fn end(&mut self, at: u32, mut sink: Incoming, bytes: u64, said: Said) {
        let work = self.work;
        let item = work.item(at);
        let mut compare = || {
            if let Some(asking) = self.asking {
                let theirs = said.digest.as_ref();
                let theirs = theirs.and_then(|reply| digest::digest_in(reply, asking));
                let theirs = theirs.ok_or_else(digest::no_digest)?;
                if digest::of_local(asking.algorithm, sink.content()?, bytes)? != theirs {
                    sink.discard();
                    return Err(digest::differs());
                }
            }
            Ok(())
        };
        let compared = compare();
        let finished =
            compared.and_then(|()| sink.publish(item.modify_s.or(said.modify_s), item.mode));
        match finished {
            Ok(()) => {
                self.places.tidy(work, at);
                work.done(at, bytes);
            }
            Err(error) => work.failed(at, error),
        }
    }

    fn failed(&mut self, at: u32, error: Error) {
        match self.work.item(at).is_sized {
            true => self.work.failed(at, error),
            false => self.refused.push((at, error)),
        }
    }
}

/// One file of any size.
///
/// # Errors
/// It did not come.
pub fn single(work: &Work, c: &mut Connection, at: u32) -> Result<(), Error> {
    let remote = work.remote(at);
    one_line("the remote name", &remote)?;
    let mut places = Places::default();
    let (dir, name) = places.of(work, at)?;
    incoming::check_free(&dir, &name, replaces(work))?;
    let item = work.item(at);
    let mut progress = work.report.board.file(&shown(&remote), item.bytes);
    // What may be continued must be known for what it is; what is small is sooner fetched.
    let worth = !item.is_sized && has_remains(&dir, &name)
        || item.is_sized && (item.bytes >= KEPT_BYTES_MIN || work.options.verify);
    // Times that came from lines for people do not tell one version from another.
    let known = match worth && (c.features.mlst || c.features.size) {
        true => listing::stat(c, &remote)?,
        false => None,
    };
    let version = known.and_then(|known| {
        Some(Version {
            of: (&work.server, &remote),
            bytes: known.size?,
            modify_s: known.modify_s?,
        })
    });
    if let Some(version) = version {
        let place = (&dir, &*name);
        let how = (replaces(work), item.mode);
        let verifies = work.options.verify;
        let bytes = resume::download(c, version, place, how, verifies, &mut progress)?;
        places.tidy(work, at);
        work.done(at, bytes);
        return Ok(());
    }
    let mut incoming = Incoming::create(&dir, &name, replaces(work), None)?;
    let done = transfer::download(c, &remote, None, &mut incoming, &mut progress)
        .map_err(|error| explained(c, &remote, error))?;
    if work.options.verify {
        digest::verify(c, &remote, incoming.content()?, done.bytes)?;
    }
    incoming.publish(done.modify_s.or(item.modify_s), item.mode)?;
    places.tidy(work, at);
    work.done(at, done.bytes);
    Ok(())
}

/// A refusal that is due to what the name stands for says what to do about it, if one question that
/// changes nothing can tell.
fn explained(c: &mut Connection, remote: &[u8], error: Error) -> Error {
    let is_dir = error.code == Some(listing::NOTHING_THERE)
        && c.features.mlst
        && !c.is_lost()
        && matches!(listing::directory(c, remote), Ok(Some(_)));
    match is_dir {
        true => Error::new(
            error.exit,
            "it is a directory; -r brings it with all that is in it",
        ),
        false => error,
    }
}
