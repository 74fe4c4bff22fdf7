//! Random transactions against the tables and against plain sets of rows, side by side.
//!
//! After every operation the outcome must agree, a refused one included; after every commit so must
//! the rows in order, every index, and the change set (before + changes = after, and no change is
//! listed that is none).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;
use tine_store::Direction;
use tine_types::AlgebraicType;
use tine_types::bsatn::{BsatnWrite, Reader};
use tine_types::module_def::ModuleDef;

use crate::testing::{Database, auto_increment, btree, primary_key, table, unique_column};
use crate::{ChangeSet, IndexId, TableError, TableId, TableRead, TableSavepoint, TableWriter};

/// `id` primary key with a sequence, `name` unique, indexes on `team` and on `team, name`.
type Person = (u64, String, i32);
/// No primary key; index on `text`.
type Note = (u8, String);

#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    people: BTreeSet<Person>,
    notes: BTreeSet<Note>,
    last_id: Option<u64>,
}

#[derive(Clone, Debug)]
enum Operation {
    InsertPerson(Person),
    UpdateById(Person),
    UpdateByName(Person),
    DeletePerson(Person),
    DeleteById(u64),
    DeleteByName(String),
    DeleteByTeam(i32),
    DeleteTeams(Bound<i32>, Bound<i32>),
    DeleteNamesInTeam(i32, Bound<String>, Bound<String>),
    ClearPeople,
    InsertNote(Note),
    DeleteNote(Note),
    DeleteNotes(String),
    Save,
    BackToSave,
    Rollback,
    Commit,
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "a\0", "ab", "b", "c"]).prop_map(str::to_owned)
}

fn person() -> impl Strategy<Value = Person> {
    (0u64..7, name(), -1i32..3)
}

fn bound<T: std::fmt::Debug + Clone + 'static>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Bound<T>> {
    (value, 0..3).prop_map(|(value, kind)| match kind {
        0 => Bound::Included(value),
        1 => Bound::Excluded(value),
        _ => Bound::Unbounded,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => person().prop_map(Operation::InsertPerson),
        3 => person().prop_map(Operation::UpdateById),
        3 => person().prop_map(Operation::UpdateByName),
        1 => person().prop_map(Operation::DeletePerson),
        1 => (1u64..7).prop_map(Operation::DeleteById),
        1 => name().prop_map(Operation::DeleteByName),
        1 => (-1i32..3).prop_map(Operation::DeleteByTeam),
        1 => (bound(-1i32..3), bound(-1i32..3)).prop_map(|(start, end)| Operation::DeleteTeams(start, end)),
        1 => (-1i32..3, bound(name()), bound(name()))
            .prop_map(|(team, start, end)| Operation::DeleteNamesInTeam(team, start, end)),
        1 => Just(Operation::ClearPeople),
        4 => (0u8..2, name()).prop_map(Operation::InsertNote),
        2 => (0u8..2, name()).prop_map(Operation::DeleteNote),
        1 => name().prop_map(Operation::DeleteNotes),
        1 => Just(Operation::Save),
        1 => Just(Operation::BackToSave),
        1 => Just(Operation::Rollback),
        4 => Just(Operation::Commit),
    ]
}

fn person_row(person: &Person) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_u64(person.0);
    row.put_str(&person.1);
    row.put_i32(person.2);
    row
}

fn read_person(row: &[u8]) -> Person {
    let mut reader = Reader::new(row);
    let person = (reader.u64().unwrap(), reader.str().unwrap().to_owned(), reader.i32().unwrap());
    reader.finish().unwrap();
    person
}

fn note_row(note: &Note) -> Vec<u8> {
    let mut row = vec![note.0];
    row.put_str(&note.1);
    row
}

fn read_note(row: &[u8]) -> Note {
    let mut reader = Reader::new(row);
    let note = (reader.u8().unwrap(), reader.str().unwrap().to_owned());
    reader.finish().unwrap();
    note
}

fn text(value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_str(value);
    out
}

fn definition() -> ModuleDef {
    let mut def = ModuleDef::default();
    let columns = [("id", AlgebraicType::U64), ("name", AlgebraicType::String), ("team", AlgebraicType::I32)];
    let people = table(&mut def, "people", &columns);
    let people = &mut def.tables[people];
    primary_key(people, 0);
    unique_column(people, 1);
    people.sequences.push(auto_increment(0));
    people.indexes.push(btree(&[2]));
    people.indexes.push(btree(&[2, 1]));
    let notes = table(&mut def, "notes", &[("kind", AlgebraicType::U8), ("text", AlgebraicType::String)]);
    def.tables[notes].indexes.push(btree(&[1]));
    def
}

struct Ids {
    people: TableId,
    notes: TableId,
    by_id: IndexId,
    by_name: IndexId,
    by_team: IndexId,
    by_team_name: IndexId,
    by_text: IndexId,
}

impl Ids {
    fn of(writer: &TableWriter) -> Ids {
        let schema = writer.schema();
        let index = |name| schema.index_named(name).unwrap().1.id;
        Ids {
            people: schema.table_named("people").unwrap().id,
            notes: schema.table_named("notes").unwrap().id,
            by_id: index("people_id_idx_btree"),
            by_name: index("people_name_idx_btree"),
            by_team: index("people_team_idx_btree"),
            by_team_name: index("people_team_name_idx_btree"),
            by_text: index("notes_text_idx_btree"),
        }
    }
}

/// What an operation answers: a number, or the code of its error.
type Outcome = Result<u64, &'static str>;

const UNIQUE_VIOLATION: &str = "TN0306";
const NO_SUCH_ROW: &str = "TN0309";

impl Model {
    /// The id an inserted person gets, and the sequence after it.
    fn take_id(&self, id: u64) -> (u64, Option<u64>) {
        if id != 0 {
            return (id, self.last_id);
        }
        let mut next = self.last_id.unwrap_or(0) + 1;
        if self.people.iter().any(|person| person.0 == next) {
            next = self.people.last().expect("one is taken").0 + 1;
        }
        (next, Some(next))
    }

    fn add(&mut self, person: Person) -> Outcome {
        if self.people.iter().any(|other| other.0 == person.0 || other.1 == person.1) {
            return Err(UNIQUE_VIOLATION);
        }
        self.people.insert(person);
        Ok(1)
    }

    fn insert(&mut self, (id, name, team): Person) -> Outcome {
        let (id, last_id) = self.take_id(id);
        self.add((id, name, team))?;
        self.last_id = last_id;
        Ok(id)
    }

    fn update(&mut self, (id, name, team): Person, same: impl Fn(&Person, u64, &str) -> bool) -> Outcome {
        let (id, last_id) = self.take_id(id);
        let old = self.people.iter().find(|person| same(person, id, &name)).cloned().ok_or(NO_SUCH_ROW)?;
        let mut after = self.clone();
        after.people.remove(&old);
        after.add((id, name, team))?;
        after.last_id = last_id;
        *self = after;
        Ok(id)
    }

    fn delete_people(&mut self, gone: impl Fn(&Person) -> bool) -> Outcome {
        let before = self.people.len();
        self.people.retain(|person| !gone(person));
        Ok((before - self.people.len()) as u64)
    }

    fn delete_notes(&mut self, gone: impl Fn(&Note) -> bool) -> Outcome {
        let before = self.notes.len();
        self.notes.retain(|note| !gone(note));
        Ok((before - self.notes.len()) as u64)
    }

    fn apply(&mut self, operation: &Operation) -> Outcome {
        match operation.clone() {
            Operation::InsertPerson(person) => self.insert(person),
            Operation::UpdateById(person) => self.update(person, |old, id, _| old.0 == id),
            Operation::UpdateByName(person) => self.update(person, |old, _, name| old.1 == name),
            Operation::DeletePerson(gone) => self.delete_people(|person| *person == gone),
            Operation::DeleteById(id) => self.delete_people(|person| person.0 == id),
            Operation::DeleteByName(name) => self.delete_people(|person| person.1 == name),
            Operation::DeleteByTeam(team) => self.delete_people(|person| person.2 == team),
            Operation::DeleteTeams(start, end) => self.delete_people(|person| inside(&person.2, &start, &end)),
            Operation::DeleteNamesInTeam(team, start, end) => {
                self.delete_people(|person| person.2 == team && inside(&person.1, &start, &end))
            }
            Operation::ClearPeople => self.delete_people(|_| true),
            Operation::InsertNote(note) => Ok(u64::from(self.notes.insert(note))),
            Operation::DeleteNote(gone) => self.delete_notes(|note| *note == gone),
            Operation::DeleteNotes(text) => self.delete_notes(|note| note.1 == text),
            Operation::Save | Operation::BackToSave | Operation::Rollback | Operation::Commit => Ok(0),
        }
    }
}

fn inside<T: Ord>(value: &T, start: &Bound<T>, end: &Bound<T>) -> bool {
    (match start {
        Bound::Included(start) => value >= start,
        Bound::Excluded(start) => value > start,
        Bound::Unbounded => true,
    }) && match end {
        Bound::Included(end) => value <= end,
        Bound::Excluded(end) => value < end,
        Bound::Unbounded => true,
    }
}

fn apply(writer: &mut TableWriter, ids: &Ids, operation: &Operation) -> Outcome {
    let mut generated = Vec::new();
    let encode_bound = |bound: &Bound<i32>| bound.map(|team| team.to_le_bytes().to_vec());
    let written = |row: Result<crate::WrittenRow<'_>, TableError>| row.map(|row| read_person(row.row).0);
    let outcome = match operation {
        Operation::InsertPerson(person) => {
            let id = written(writer.insert(ids.people, &person_row(person), &mut generated));
            let expected = id.as_ref().ok().filter(|_| person.0 == 0).map(|id| id.to_le_bytes().to_vec());
            assert_eq!(generated, expected.unwrap_or_default());
            id
        }
        Operation::UpdateById(person) => {
            written(writer.update(ids.people, ids.by_id, &person_row(person), &mut generated))
        }
        Operation::UpdateByName(person) => {
            written(writer.update(ids.people, ids.by_name, &person_row(person), &mut generated))
        }
        Operation::DeletePerson(person) => writer.delete_row(ids.people, &person_row(person)).map(u64::from),
        Operation::DeleteById(id) => writer.delete_by_index_point(ids.by_id, &id.to_le_bytes()).map(u64::from),
        Operation::DeleteByName(name) => writer.delete_by_index_point(ids.by_name, &text(name)).map(u64::from),
        Operation::DeleteByTeam(team) => writer.delete_by_index_point(ids.by_team, &team.to_le_bytes()).map(u64::from),
        Operation::DeleteTeams(start, end) => {
            let (start, end) = (encode_bound(start), encode_bound(end));
            let (start, end) = (start.as_ref().map(|key| &key[..]), end.as_ref().map(|key| &key[..]));
            writer.delete_by_index_range(ids.by_team, &[], 0, start, end).map(u64::from)
        }
        Operation::DeleteNamesInTeam(team, start, end) => {
            let (start, end) = (start.as_ref().map(|name| text(name)), end.as_ref().map(|name| text(name)));
            let (start, end) = (start.as_ref().map(|key| &key[..]), end.as_ref().map(|key| &key[..]));
            let prefix = team.to_le_bytes();
            writer.delete_by_index_range(ids.by_team_name, &prefix, 1, start, end).map(u64::from)
        }
        Operation::ClearPeople => writer.clear(ids.people),
        Operation::InsertNote(note) => {
            writer.insert(ids.notes, &note_row(note), &mut generated).map(|row| u64::from(row.changed))
        }
        Operation::DeleteNote(note) => writer.delete_row(ids.notes, &note_row(note)).map(u64::from),
        Operation::DeleteNotes(name) => writer.delete_by_index_point(ids.by_text, &text(name)).map(u64::from),
        Operation::Save | Operation::BackToSave | Operation::Rollback | Operation::Commit => Ok(0),
    };
    outcome.map_err(|error| error.code())
}

fn rows<T>(reader: &dyn TableRead, table: TableId, read: fn(&[u8]) -> T) -> Vec<T> {
    let mut cursor = reader.scan(table);
    let mut rows = Vec::new();
    while let Some(row) = cursor.next().unwrap() {
        rows.push(read(row));
    }
    rows
}

fn index_rows<T>(reader: &dyn TableRead, index: IndexId, key: &[u8], read: fn(&[u8]) -> T) -> Vec<T> {
    let mut cursor = reader.index_point(index, key).unwrap();
    let mut rows = Vec::new();
    while let Some(row) = cursor.next().unwrap() {
        rows.push(read(row));
    }
    rows
}

fn check_state(reader: &dyn TableRead, ids: &Ids, model: &Model) {
    assert_eq!(rows(reader, ids.people, read_person), model.people.iter().cloned().collect::<Vec<_>>());
    let notes: BTreeSet<Note> = rows(reader, ids.notes, read_note).into_iter().collect();
    assert_eq!(notes, model.notes);
    assert_eq!(reader.row_count(ids.people), model.people.len() as u64);
    assert_eq!(reader.row_count(ids.notes), model.notes.len() as u64);
    for index in [ids.by_name, ids.by_team, ids.by_team_name] {
        assert_eq!(reader.store().len(index.keyspace()), model.people.len() as u64, "no stray entries");
    }
    assert_eq!(reader.store().len(ids.by_text.keyspace()), model.notes.len() as u64);
    for person in &model.people {
        assert_eq!(index_rows(reader, ids.by_id, &person.0.to_le_bytes(), read_person), std::slice::from_ref(person));
        assert_eq!(index_rows(reader, ids.by_name, &text(&person.1), read_person), std::slice::from_ref(person));
        assert!(reader.contains_row(ids.people, &person_row(person)).unwrap());
        let team: Vec<Person> = model.people.iter().filter(|other| other.2 == person.2).cloned().collect();
        assert_eq!(index_rows(reader, ids.by_team, &person.2.to_le_bytes(), read_person), team);
    }
    for note in &model.notes {
        let found: BTreeSet<Note> = index_rows(reader, ids.by_text, &text(&note.1), read_note).into_iter().collect();
        assert_eq!(found, model.notes.iter().filter(|other| other.1 == note.1).cloned().collect());
    }
    let mut by_team: Vec<Person> = model.people.iter().cloned().collect();
    by_team.sort_by(|left, right| (left.2, &left.1).cmp(&(right.2, &right.1)));
    let unbounded = (Bound::Unbounded, Bound::Unbounded);
    let mut cursor = reader.index_range(ids.by_team_name, &[], 0, unbounded.0, unbounded.1).unwrap();
    let mut ranged = Vec::new();
    while let Some(row) = cursor.next().unwrap() {
        ranged.push(read_person(row));
    }
    assert_eq!(ranged, by_team);
}

fn check_changes(changes: &ChangeSet, ids: &Ids, before: &Model, after: &Model) {
    let side = |table, read: fn(&crate::TableChanges) -> &Vec<bytes::Bytes>| {
        changes.table(table).map(read).into_iter().flatten().map(|row| row.to_vec()).collect::<Vec<_>>()
    };
    let sorted = |mut rows: Vec<Vec<u8>>| {
        rows.sort();
        rows
    };
    let difference = |left: &Model, right: &Model| {
        (
            sorted(left.people.difference(&right.people).map(person_row).collect()),
            sorted(left.notes.difference(&right.notes).map(note_row).collect()),
        )
    };
    let inserts =
        (sorted(side(ids.people, |changes| &changes.inserts)), sorted(side(ids.notes, |changes| &changes.inserts)));
    let deletes =
        (sorted(side(ids.people, |changes| &changes.deletes)), sorted(side(ids.notes, |changes| &changes.deletes)));
    assert_eq!(inserts, difference(after, before));
    assert_eq!(deletes, difference(before, after));
    assert!(changes.tables.iter().all(|table| !table.inserts.is_empty() || !table.deletes.is_empty()));
}

fn run(operations: &[Operation]) {
    let database = Database::new(&definition());
    let mut writer = database.writer();
    let ids = Ids::of(&writer);
    let mut committed = Model::default();
    let mut model = Model::default();
    let mut saved: Option<(TableSavepoint, Model)> = None;
    let mut timestamp_micros = 0;
    for operation in operations.iter().chain([&Operation::Commit]) {
        let expected = model.apply(operation);
        assert_eq!(apply(&mut writer, &ids, operation), expected, "{operation:?}");
        match operation {
            Operation::Save => saved = Some((writer.savepoint(), model.clone())),
            Operation::BackToSave => {
                if let Some((savepoint, then)) = saved.take() {
                    writer.rollback_to(savepoint);
                    model = then;
                }
            }
            Operation::Rollback => {
                writer.rollback();
                model = committed.clone();
                saved = None;
            }
            Operation::Commit => {
                timestamp_micros += 1;
                let (_, changes) = writer.commit(b"", timestamp_micros).unwrap();
                check_changes(&changes, &ids, &committed, &model);
                committed = model.clone();
                saved = None;
                writer.writer_mut().publish();
                check_state(&database.snapshot(), &ids, &model);
            }
            _ => {}
        }
        check_state(&writer, &ids, &model);
    }
    drop(writer);
    let sequences = database.schema.sequences_keyspace();
    let snapshot = database.snapshot();
    let mut cursor = snapshot.store().range(sequences, Bound::Unbounded, Bound::Unbounded, Direction::Forward);
    let state = cursor.next().unwrap().map(|(_, value)| i128::from_le_bytes(value.try_into().unwrap()));
    assert_eq!(state, committed.last_id.map(i128::from));
    assert_eq!(Arc::strong_count(&database.schema), 2, "only the database and the snapshot are left");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tables_behave_like_sets_of_rows(operations in prop::collection::vec(operation(), 1..80)) {
        run(&operations);
    }
}
