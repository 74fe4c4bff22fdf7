// Drives a world state with the client that bb.js ships for it, which starts the program itself. Prints each command
// with its reply or refusal, one JSON object a line.
//
// usage: node world_state.mjs PROGRAM DATA_DIRECTORY COPY_DIRECTORY

import { AsyncApi, WsdbBackend } from '@aztec/bb.js/aztec-wsdb';
import { Encoder } from 'msgpackr';

const [program, dataDir, copy] = process.argv.slice(2);
const NULLIFIERS = 0, NOTES = 1, PUBLIC_DATA = 2, MESSAGES = 3, ARCHIVE = 4;
const LATEST = 0xffffffff;

const element = number => {
  const bytes = Buffer.alloc(32);
  bytes.writeBigUInt64BE(BigInt(number), 24);
  return bytes;
};
const encoder = new Encoder({ useRecords: false });
const note = number => encoder.pack(element(number));
const nullifier = number => encoder.pack({ nullifier: element(number) });
const write = (slot, value) => encoder.pack({ slot: element(slot), value: element(value) });
const revision = (forkid, blocknumber = LATEST, includeuncommitted = true) => ({ forkid, blocknumber, includeuncommitted });

const shown = (_, value) => {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (value?.type === 'Buffer') return Buffer.from(value.data).toString('hex');
  if (typeof value === 'bigint') return `${value}`;
  if (value instanceof Map) return Object.fromEntries(value);
  return value;
};

const backend = new WsdbBackend({
  binaryPath: program, dataDir, threads: 2, treePrefill: { 0: 128, 2: 128 }, genesisTimestamp: 7,
  treeHeights: { 0: 42, 1: 42, 2: 40, 3: 36, 4: 30 }, mapSizes: { 0: 65536, 1: 65536, 2: 65536, 3: 65536, 4: 65536 },
  prefilledPublicData: [[element(500), element(1)], [element(501), element(2)]],
});
await backend.waitUntilReady();
const client = new AsyncApi(backend);

const ask = async (name, fields = {}) => {
  let line;
  let reply;
  try {
    reply = await client[`wsdb${name}`](fields);
    line = { command: name, reply };
  } catch (error) {
    line = { command: name, error: error.message };
  }
  console.log(JSON.stringify(line, shown));
  return reply;
};

const inspect = async (forkid, block = LATEST) => {
  for (const treeid of [NULLIFIERS, NOTES, PUBLIC_DATA, MESSAGES, ARCHIVE]) {
    await ask('GetTreeInfo', { treeid, revision: revision(forkid, block) });
    await ask('GetSiblingPath', { treeid, revision: revision(forkid, block), leafindex: 0 });
  }
};

await ask('GetInitialStateReference');
await inspect(0);

// A block is tried on a fork, which tells its roots, and then synced.
const { forkid } = await ask('CreateFork', { latest: true, blocknumber: 0 });
const archive = async () => (await ask('GetTreeInfo', { treeid: ARCHIVE, revision: revision(forkid) })).root;
const before = await archive();
const notes = [11, 12, 13], messages = [21, 22], nullifiers = [1001, 1002, 1003], writes = [[500, 9], [2000, 5]];
await ask('AppendLeaves', { treeid: NULLIFIERS, leaves: nullifiers.map(nullifier), forkid });
await ask('AppendLeaves', { treeid: NOTES, leaves: notes.map(note), forkid });
await ask('AppendLeaves', { treeid: MESSAGES, leaves: messages.map(note), forkid });
await ask('SequentialInsert', { treeid: PUBLIC_DATA, leaves: writes.map(([slot, value]) => write(slot, value)), forkid });
const { state: found } = await ask('GetStateReference', { revision: revision(forkid) });
// Trees are numbers on the wire, which keys of an object are not.
const state = new Map(Object.entries(found).map(([tree, reference]) => [Number(tree), reference]));
const blockheaderhash = element(777);
await ask('UpdateArchive', { blockstateref: state, blockheaderhash, forkid });
const block = {
  blocknumber: 1, blockstateref: state, blockheaderhash, expectedarchiveroot: await archive(),
  expectedpreviousarchiveroot: before, paddednotehashes: notes.map(element), paddedl1tol2messages: messages.map(element),
  paddednullifiers: nullifiers.map(number => ({ nullifier: element(number) })),
  publicdatawrites: writes.map(([slot, value]) => ({ slot: element(slot), value: element(value) })),
};
await ask('SyncBlock', { ...block, expectedarchiveroot: element(1) });
await ask('SyncBlock', block);
await ask('GetStatus');
await inspect(0, 1);
await inspect(0, 0);

// Witnesses, lookups and paths.
await ask('BatchInsert', { treeid: NULLIFIERS, leaves: [3001, 3002, 3003, 3004].map(nullifier), subtreedepth: 2, forkid });
await ask('FindLowLeaf', { treeid: NULLIFIERS, revision: revision(forkid), key: element(1500) });
await ask('FindLeafIndices', { treeid: NOTES, revision: revision(0), leaves: [note(12), note(99)], startindex: 0 });
await ask('FindSiblingPaths', { treeid: NOTES, revision: revision(0), leaves: [note(13), note(99)] });
await ask('GetLeafValue', { treeid: NOTES, revision: revision(0), leafindex: 1 });
await ask('GetLeafValue', { treeid: NOTES, revision: revision(0), leafindex: 1000 });
await ask('GetLeafPreimage', { treeid: PUBLIC_DATA, revision: revision(forkid), leafindex: 128 });
await ask('GetBlockNumbersForLeafIndices', { treeid: NOTES, revision: revision(0), leafindices: [0, 2, 50] });

// Checkpoints of the fork.
await ask('CreateCheckpoint', { forkid });
await ask('AppendLeaves', { treeid: NOTES, leaves: [note(31)], forkid });
await ask('RevertCheckpoint', { forkid });
await ask('CreateCheckpoint', { forkid });
await ask('AppendLeaves', { treeid: NOTES, leaves: [note(32)], forkid });
await ask('CommitCheckpoint', { forkid });
await ask('CommitCheckpoint', { forkid });
await ask('CreateCheckpoint', { forkid });
await ask('RevertAllCheckpoints', { forkid });
await ask('CommitAllCheckpoints', { forkid });
await inspect(forkid);
await ask('DeleteFork', { forkid });
await ask('DeleteFork', { forkid });

// Many at once come back in order.
await Promise.all([...Array(40).keys()].map(async index => {
  const { value } = await client.wsdbGetLeafValue({ treeid: NOTES, revision: revision(0), leafindex: index % 3 });
  // A leaf travels as it was encoded.
  if (!Buffer.from(value).includes(element(notes[index % 3]))) throw new Error(`reply ${index} is another's`);
}));

// The chain.
await ask('AppendLeaves', { treeid: NOTES, leaves: [note(41)], forkid: 0 });
await ask('Rollback');
await ask('AppendLeaves', { treeid: NOTES, leaves: [note(42)], forkid: 0 });
await ask('Commit');
await ask('FinalizeBlocks', { toblocknumber: 1 });
await ask('UnwindBlocks', { toblocknumber: 1 });
await ask('RemoveHistoricalBlocks', { toblocknumber: 1 });
await ask('CopyStores', { dstpath: copy, compact: true });
await ask('CopyStores', { dstpath: copy, compact: true });
await inspect(0);
await backend.destroy();
