//! The checks.

use std::collections::HashMap;

use super::{Connection, Event, History, Request, Row, Violation};

/// Where each row of a fork is: position by id.
type Positions = HashMap<u64, u64>;

fn violation<T>(guarantee: &'static str, text: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { guarantee, text: text.into() })
}

/// Checks the history of one fork. `base` are the rows that it began with, which are the first of its rows.
///
/// # Errors
/// The first guarantee found broken.
pub fn check(history: &History, base: &[Row]) -> Result<(), Violation> {
    let positions = positions(&history.rows)?;
    for row in base {
        if positions.get(&row.id) != Some(&row.before) {
            return violation("G8", format!("row {row:?} of the base is not at its place in the fork"));
        }
    }
    for connection in &history.connections {
        check_replies(connection)?;
        check_order(connection, &positions)?;
        check_reads(connection, &positions)?;
        check_subscription(connection, &positions)?;
    }
    check_lsns(history, &positions)?;
    check_local_lsns(history, &positions)
}

/// G2: every position is taken by exactly one write.
fn positions(rows: &[Row]) -> Result<Positions, Violation> {
    let mut taken = vec![None; rows.len()];
    let mut positions = Positions::with_capacity(rows.len());
    for row in rows {
        match taken.get_mut(row.before as usize) {
            Some(place @ None) => *place = Some(row.id),
            Some(Some(other)) => return violation("G2", format!("writes {other} and {} saw the same state", row.id)),
            None => return violation("G2", format!("{row:?} saw more rows than there are: {}", rows.len())),
        }
        positions.insert(row.id, row.before);
    }
    Ok(positions)
}

/// G3: one reply per request; those of the lane in order.
fn check_replies(connection: &Connection) -> Result<(), Violation> {
    let mut replied = vec![false; connection.sent.len()];
    let mut newest_lane_request = None;
    for event in &connection.received {
        let Event::Replied { request, .. } = event else { continue };
        if std::mem::replace(&mut replied[*request], true) {
            return violation("G3", format!("request {request} was answered twice"));
        }
        if matches!(connection.sent[*request], Request::WriteTwice(_)) {
            continue;
        }
        if newest_lane_request.is_some_and(|newest| newest > *request) {
            return violation(
                "G3",
                format!("the reply to request {request} came after that to {newest_lane_request:?}"),
            );
        }
        newest_lane_request = Some(*request);
    }
    match replied.iter().position(|replied| !replied) {
        Some(missing) if !connection.dropped => {
            violation("G3", format!("request {missing}, {:?}, was never answered", connection.sent[missing]))
        }
        _ => Ok(()),
    }
}

/// G1 and G6: what was sent in order ran in order, what failed left nothing, and a connection that was cut off got a prefix done.
fn check_order(connection: &Connection, positions: &Positions) -> Result<(), Violation> {
    let mut outcomes = vec![None; connection.sent.len()];
    for event in &connection.received {
        if let Event::Replied { request, ok, .. } = event {
            outcomes[*request] = Some(*ok);
        }
    }
    let (mut newest, mut first_missing) = (None, None);
    for (request, outcome) in connection.sent.iter().zip(&outcomes) {
        match request {
            Request::Write(id) => match positions.get(id) {
                Some(position) => {
                    if newest.is_some_and(|newest| newest >= *position) {
                        return violation("G1", format!("write {id} ran before one sent earlier on the connection"));
                    }
                    if let Some(missing) = first_missing {
                        return violation("G1", format!("write {id} ran, write {missing} before it did not"));
                    }
                    newest = Some(*position);
                }
                None if *outcome == Some(true) => return violation("G6", format!("write {id} succeeded and is lost")),
                None => first_missing = Some(*id),
            },
            Request::Failing(id) => {
                if *outcome == Some(true) {
                    return violation("G6", format!("write {id}, which fails, was said to have succeeded"));
                }
                if positions.contains_key(id) {
                    return violation("G6", format!("write {id} failed and left its row"));
                }
            }
            Request::WriteTwice(id) => {
                let both = [positions.get(id), positions.get(&(id + 1))];
                match (both, outcome) {
                    ([Some(first), Some(second)], _) if second <= first => {
                        return violation("G2", format!("the transactions of procedure {id} ran in the wrong order"));
                    }
                    ([None, Some(_)], _) | ([None, _] | [_, None], Some(true)) => {
                        return violation("G6", format!("procedure {id} succeeded without both transactions"));
                    }
                    _ => {}
                }
            }
            Request::Query | Request::CommittedRead | Request::Subscribe | Request::Unsubscribe => {}
        }
    }
    Ok(())
}

/// The version that `rows` are: all rows of the positions before it.
fn version_of(rows: &[Row], positions: &Positions) -> Result<u64, Violation> {
    let version = rows.len() as u64;
    let mut seen = vec![false; rows.len()];
    for row in rows {
        let is_known = positions.get(&row.id) == Some(&row.before);
        let Some(place) = seen.get_mut(row.before as usize).filter(|_| is_known) else {
            return violation("G2", format!("a read of {version} rows shows {row:?}: no version has these rows"));
        };
        if std::mem::replace(place, true) {
            return violation("G2", format!("a read shows {row:?} twice"));
        }
    }
    Ok(version)
}

/// G1 for reads, and G4: a read sees the writes before it and not those after it, and nothing goes back in time.
fn check_reads(connection: &Connection, positions: &Positions) -> Result<(), Violation> {
    // For each request, the newest own write before it and the oldest after it.
    let own = |request: &Request| match request {
        Request::Write(id) => positions.get(id).copied(),
        _ => None,
    };
    let mut before = Vec::with_capacity(connection.sent.len());
    let mut newest = 0;
    for request in &connection.sent {
        before.push(newest);
        newest = own(request).map_or(newest, |position| position + 1);
    }
    let mut after = vec![u64::MAX; connection.sent.len()];
    let mut oldest = u64::MAX;
    for (place, request) in after.iter_mut().zip(&connection.sent).rev() {
        *place = oldest;
        oldest = own(request).unwrap_or(oldest);
    }
    let mut seen = 0;
    for event in &connection.received {
        match event {
            Event::Update(rows) => {
                let version = rows.iter().map(|row| row.before + 1).max().unwrap_or(seen);
                if version < seen {
                    return violation("G4", format!("an update of version {version} came after {seen} was seen"));
                }
                seen = version;
            }
            Event::Replied { request, ok: true, rows } => match connection.sent[*request] {
                Request::Query | Request::CommittedRead | Request::Subscribe => {
                    let version = version_of(rows, positions)?;
                    if version < seen {
                        return violation(
                            "G4",
                            format!("request {request} read version {version} after {seen} was seen"),
                        );
                    }
                    if version < before[*request] || version > after[*request] {
                        let (from, to) = (before[*request], after[*request]);
                        return violation("G1", format!("request {request} read {version}, not within {from}..={to}"));
                    }
                    seen = version;
                }
                Request::Write(id) => {
                    let version = positions.get(&id).map_or(0, |position| position + 1);
                    if version < seen {
                        return violation("G4", format!("write {id} was answered after version {seen} was seen"));
                    }
                    seen = version;
                }
                // Its transactions are seen once it has answered; its answer itself shows no version.
                Request::WriteTwice(id) => {
                    seen = seen.max(positions.get(&(id + 1)).map_or(0, |position| position + 1));
                }
                Request::Failing(_) | Request::Unsubscribe => {}
            },
            Event::Replied { request, rows: _, ok: false } => {
                if !matches!(
                    connection.sent[*request],
                    Request::Write(_) | Request::Failing(_) | Request::WriteTwice(_)
                ) {
                    return violation(
                        "G1",
                        format!("request {request} makes sense in the order sent, and was refused"),
                    );
                }
            }
        }
    }
    Ok(())
}

/// G5: the first rows are one version, then every commit arrives once, in order, one message each, with nothing left out before a
/// later read.
fn check_subscription(connection: &Connection, positions: &Positions) -> Result<(), Violation> {
    let mut subscribed: Option<u64> = None;
    for event in &connection.received {
        let updates = match event {
            Event::Update(rows) => {
                if rows.is_empty() || subscribed.is_none() {
                    return violation("G5", format!("an update that nobody asked for: {rows:?}"));
                }
                rows
            }
            Event::Replied { ok: false, .. } => continue,
            Event::Replied { request, rows, .. } => match connection.sent[*request] {
                Request::Subscribe => {
                    subscribed = Some(version_of(rows, positions)?);
                    continue;
                }
                Request::Unsubscribe => {
                    subscribed = None;
                    continue;
                }
                Request::Query => {
                    let version = rows.len() as u64;
                    if subscribed.is_some_and(|next| next != version) {
                        return violation(
                            "G5",
                            format!("a read shows {version} rows, the subscription {subscribed:?}"),
                        );
                    }
                    continue;
                }
                Request::Write(id) => {
                    if subscribed.is_some() && rows.iter().all(|row| row.id != id) {
                        return violation("G5", format!("the reply to write {id} lacks its row"));
                    }
                    rows
                }
                _ => continue,
            },
        };
        if let Some(next) = &mut subscribed {
            let [row] = updates.as_slice() else {
                return violation("G5", format!("one commit, but several rows: {updates:?}"));
            };
            if row.before != *next || positions.get(&row.id) != Some(next) {
                return violation("G5", format!("the commit at {next} was expected, {row:?} came"));
            }
            *next += 1;
        }
    }
    Ok(())
}

/// The commits that HTTP callers were told: a write is one commit, so LSN and position go together.
fn check_lsns(history: &History, positions: &Positions) -> Result<(), Violation> {
    let mut distance = None;
    for caller in &history.http {
        let mut newest = None;
        for write in caller {
            let Some(position) = positions.get(&write.id) else {
                return violation("G6", format!("write {} over HTTP succeeded and is lost", write.id));
            };
            if newest.is_some_and(|newest| newest >= *position) {
                return violation("G1", format!("write {} over HTTP ran before one answered earlier", write.id));
            }
            newest = Some(*position);
            // The reply may tell a newer commit than its own, of the same batch; never an older one.
            let Some(ahead) = write.lsn.checked_sub(*position) else {
                return violation("G4", format!("write {} at {position} was told LSN {}", write.id, write.lsn));
            };
            let least = distance.get_or_insert(ahead);
            *least = ahead.min(*least);
        }
    }
    Ok(())
}

/// The LSNs that local programs were told. A committed read tells exactly the version it shows, and since each write is one commit, LSN
/// and version differ by the same number for all of a fork; other replies may tell a newer commit of the same batch, never an older
/// one (G4), and no connection sees LSNs go back.
fn check_local_lsns(history: &History, positions: &Positions) -> Result<(), Violation> {
    let mut distance: Option<u64> = None;
    let mut told = Vec::new();
    for connection in &history.connections {
        let mut newest = 0;
        let mut rows_of = HashMap::new();
        for event in &connection.received {
            if let Event::Replied { request, rows, .. } = event {
                rows_of.insert(*request, rows.len() as u64);
            }
        }
        for (request, lsn) in &connection.lsns {
            if *lsn < newest {
                return violation("G4", format!("request {request} was told LSN {lsn} after {newest}"));
            }
            newest = *lsn;
            let shown = match connection.sent[*request] {
                Request::Write(id) => positions.get(&id).map_or(0, |position| position + 1),
                _ => rows_of.get(request).copied().unwrap_or(0),
            };
            if connection.sent[*request] == Request::CommittedRead {
                let found = lsn.checked_sub(shown);
                match (found, distance) {
                    (Some(found), None) => distance = Some(found),
                    (Some(found), Some(expected)) if found == expected => {}
                    _ => {
                        return violation(
                            "G2",
                            format!(
                                "a committed read shows version {shown} at LSN {lsn}, others differ by {distance:?}"
                            ),
                        );
                    }
                }
            }
            told.push((*lsn, shown));
        }
    }
    let newest = history.rows.len() as u64;
    match told
        .iter()
        .find(|(lsn, shown)| distance.is_some_and(|distance| *lsn < distance + shown || *lsn > distance + newest))
    {
        Some((lsn, shown)) => violation("G4", format!("a reply that shows version {shown} was told LSN {lsn}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, Event, History, Request, Row};
    use super::check;

    fn row(id: u64, before: u64) -> Row {
        Row { id, before }
    }

    fn reply(request: usize, rows: &[Row]) -> Event {
        Event::Replied { request, ok: true, rows: rows.to_vec() }
    }

    fn history(sent: &[Request], received: &[Event], rows: &[Row]) -> History {
        let connection = Connection { sent: sent.to_vec(), received: received.to_vec(), ..Connection::default() };
        History { connections: vec![connection], http: Vec::new(), rows: rows.to_vec() }
    }

    #[test]
    fn histories() {
        use Request::{Failing, Query, Subscribe, Write};
        let (a, b, c) = (row(1, 0), row(2, 1), row(3, 2));
        type Case<'a> = (&'a str, &'a [Request], &'a [Event], &'a [Row], Option<&'a str>);
        let cases: &[Case] = &[
            (
                "sound",
                &[Write(1), Subscribe, Write(2), Query],
                &[reply(0, &[]), reply(1, &[a]), reply(2, &[b]), Event::Update(vec![c]), reply(3, &[a, b, c])],
                &[a, b, c],
                None,
            ),
            ("two writes at once", &[], &[], &[row(1, 0), row(2, 0)], Some("G2")),
            ("out of order", &[Write(2), Write(1)], &[reply(0, &[]), reply(1, &[])], &[a, b], Some("G1")),
            ("replies out of order", &[Query, Query], &[reply(1, &[]), reply(0, &[])], &[], Some("G3")),
            ("no reply", &[Query], &[], &[], Some("G3")),
            (
                "a failed write stays",
                &[Failing(1)],
                &[Event::Replied { request: 0, ok: false, rows: vec![] }],
                &[a],
                Some("G6"),
            ),
            ("a write is lost", &[Write(1)], &[reply(0, &[])], &[], Some("G6")),
            ("a read too early", &[Write(1), Query], &[reply(0, &[]), reply(1, &[])], &[a], Some("G4")),
            ("a read too late", &[Query, Write(1)], &[reply(0, &[a]), reply(1, &[])], &[a], Some("G1")),
            ("torn read", &[Query], &[reply(0, &[b])], &[a, b], Some("G2")),
            ("back in time", &[Query, Query], &[reply(0, &[a]), reply(1, &[])], &[a], Some("G4")),
            ("a commit left out", &[Subscribe], &[reply(0, &[a]), Event::Update(vec![c])], &[a, b, c], Some("G5")),
            (
                "a commit twice",
                &[Subscribe],
                &[reply(0, &[]), Event::Update(vec![a]), Event::Update(vec![a])],
                &[a],
                Some("G5"),
            ),
        ];
        for (name, sent, received, rows, expected) in cases {
            let found = check(&history(sent, received, rows), &[]).err().map(|violation| violation.guarantee);
            assert_eq!(found, *expected, "{name}");
        }
        let told = |lsns: &[(usize, u64)]| {
            let mut history = history(
                &[Write(1), Request::CommittedRead, Request::CommittedRead],
                &[reply(0, &[]), reply(1, &[a]), reply(2, &[a, b])],
                &[a, b],
            );
            history.connections[0].lsns = lsns.to_vec();
            check(&history, &[]).err().map(|violation| violation.guarantee)
        };
        assert_eq!(told(&[(0, 11), (1, 11), (2, 12)]), None);
        assert_eq!(told(&[(0, 12), (1, 12), (2, 13)]), None, "another first LSN");
        assert_eq!(told(&[(0, 12), (1, 11), (2, 12)]), Some("G4"), "LSNs go back");
        assert_eq!(told(&[(0, 11), (1, 11), (2, 13)]), Some("G2"), "two commits for one write");
        assert_eq!(told(&[(0, 10), (1, 11), (2, 12)]), Some("G4"), "a write told the commit before it");
        assert_eq!(check(&history(&[], &[], &[a]), &[b]).err().map(|found| found.guarantee), Some("G8"));
    }
}
