"""The faults that normlab has to survive: for each what happens, and which promise it is part of. The tests that cause
them carry `@pytest.mark.fault(number)`; `make reliability` runs those and writes docs/reliability.md.
"""

from dataclasses import dataclass

PROMISES = {
    "P1": "a kill at any instant loses at most one checkpoint interval, and never a finished trial",
    "P2": "what is resumed is bit-identical to what was not interrupted, on the same machine, threads and versions",
    "P3": "a number or a curve is shown only if what it is read from is complete, has its hash, and was made by the settings and data it names",
    "P4": "one bad trial or file never blocks the others",
    "P5": "no input runs code",
    "P6": "hostile input takes bounded memory, disk and time",
}


@dataclass(frozen=True)
class Fault:
    """`happens` says what is done about it; a fault without a test says there why it cannot come."""

    fault: str
    promise: str
    happens: str
    applies: bool = True


FAULTS = {
    1: Fault("SIGKILL at random instants of training", "P1 P2", "the store ends as that of an undisturbed run, metrics, curves and weights hash by hash; two kills by default, fifty and four runners with `-m slow`"),
    2: Fault("SIGKILL between writing and renaming", "P1", "what was there before is used; `normlab store check --repair` sweeps what is left"),
    3: Fault("tensors of a checkpoint without their record, or the reverse", "P1", "the pair is passed over for the one before it, and a warning names it"),
    4: Fault("Ctrl-C, SIGTERM, and a second Ctrl-C", "P1", "training is saved where it stands, exit code 130 or 143, the same command goes on"),
    5: Fault("the runner killed and not its workers, or a worker and not its runner", "P1 P4", "workers end with their runner and their trials are free at once; a dead worker's cohort is tried again from its checkpoint"),
    6: Fault("newest checkpoint truncated", "P1 P2", "the one before it is used, with a warning that names the file"),
    7: Fault("one bit of a checkpoint flipped", "P1 P2", "its SHA-256 tells, of the tensors as of the record beside them; the one before it is used"),
    8: Fault("all checkpoints of a trial damaged", "P4", "it starts anew by itself, with warnings, and ends with the same numbers: nothing is lost but time, so nobody has to ask for it"),
    9: Fault("checkpoint of other settings or of changed code", "P3", "a cohort's folder is named by its trials' ids, which hash every setting; what was made by other versions, does not fit the network, or is of no step of this training is passed over with a warning that says so"),
    10: Fault("resumed within an epoch, at its end, where the learning rate changes", "P2", "bit-identical, stopped after every single step"),
    11: Fault("moving averages, renorm's state and step counter lost on resume", "P2", "they are in the checkpoint; evaluation, weights and statistics are compared, not the loss"),
    12: Fault("resumed with another number of threads", "P2", "cannot be: a worker has one thread on a CPU, whatever the machine or the options", applies=False),
    13: Fault("two or more runs of one study at once", "P1 P4", "they share the work, cohort by cohort, train no trial twice and move no result of each other; what one leaves when it dies, one that lives takes over before it ends"),
    14: Fault("a claim left by a dead process, its id used by another since", "P4", "the claim names machine, process and the time it started: it is taken over at once, by one runner only"),
    15: Fault("clocks that jump or differ", "P4", "a process of this machine counts as alive while it is; a claim of another machine whose time is more than a minute behind or ahead is watched for two heartbeats before it is taken"),
    16: Fault("disk full", "P1", "a checkpoint that cannot be written is a warning and training goes on; a result that cannot be written ends the run with one line, nothing half written, and the next run goes on; the room for decoded images is taken before the first is decoded"),
    17: Fault("disk full while a log is appended to", "P1", "cannot be: nothing is appended to, every file is written whole and renamed", applies=False),
    18: Fault("output folder missing, read-only or a file", "P4", "one line before any training"),
    19: Fault("torn last line or corrupt middle of a log", "P4", "cannot be: there are no logs that results depend on; a corrupt record is fault 39", applies=False),
    20: Fault("index deleted or garbage", "P4", "there is none to lose: the folders of results are the index, and what is cached is made again, images as well as what is remembered of files"),
    21: Fault("loss becomes NaN or infinite", "P4", "the trial has diverged: its curves stop there, it counts as chance, its neighbours go on untouched"),
    22: Fault("loss finite, but the network only guesses", "P3", "flagged in the report, kept in its arm"),
    23: Fault("out of memory, or killed for it", "P4", "a cohort is halved until it fits; what never fits alone is failed with the reason, exit code 1"),
    24: Fault("a worker hangs", "P4", "after 15 minutes without a word it is killed, its cohort tried once more, then failed"),
    25: Fault("batch larger than the data, last batch of one with a dense norm, empty split", "P4", "one line before any training"),
    26: Fault("constant channel, zero-variance image, offset of a thousand", "P3", "finite outputs and gradients, those of the golden vectors"),
    27: Fault("unclipped renorm with a vanishing deviation", "P3", "finite outputs and gradients"),
    28: Fault("truncated, empty, misnamed images; every mode; rotated; animated", "P4 P6", "an error that names the file, or left out up to `--max-bad-images`; never a class that changes its count unnoticed: links to folders, links in circles and pipes are refused. Only kinds of images that start no program are read"),
    29: Fault("image of 50,000 × 50,000 pixels", "P6", "refused by its header, before a pixel is decoded"),
    30: Fault("test images that are training images too, impossible splits, classes missing", "P3", "counted and said, or refused with what was found"),
    31: Fault("CIFAR-10 archive with another hash, short, or of pickles", "P3 P5", "refused; the binary version is read, record by record"),
    32: Fault("archive entries that lead out, absolute names, links", "P5", "the archive is refused as a whole; nothing is ever extracted to disk"),
    33: Fault("zip bomb, nested archives, sizes that lie", "P6", "refused by ratio, count and size before and while reading"),
    34: Fault("pickles, headers that claim what is not there, arrays of objects", "P5 P6", "no file is unpickled; safetensors and arrays are checked against their size and hash"),
    35: Fault("YAML bomb, deep nesting, any bytes", "P6", "no aliases and no tags, bounded size and depth; refused in one line"),
    36: Fault("YAML's traps: 1e-4 a word, no a boolean, keys twice", "P3", "YAML 1.2 with the types that settings have; keys twice are an error"),
    37: Fault("NaN, infinity or keys twice in JSON", "P3", "the result is damaged and named as such, and so is one with a hash of its own whose values make no sense"),
    38: Fault("unknown keys, typos, values out of bounds, hostile names", "P3 P6", "one line with place, what is allowed and the nearest spelling, before any training; fuzzed"),
    39: Fault("one bad record among many, one trial that always fails", "P4", "named; the report and the other trials go on. What is not a file, or larger than any result, is not read; what this user may not read is not set aside"),
    40: Fault("report on a study half done", "P3", "n stands beside every number, what is missing is listed, nothing is tested below two runs"),
    41: Fault("a result edited by hand, one byte changed in any file", "P3", "it is shown as damaged where it is read: numbers need result.json alone, so that damaged curves change none; `normlab store check` finds it, `--repair` sets it aside"),
    42: Fault("code, library or machine changed within a study", "P3", "other data are other trials; other versions or machines are said in the report beside the intervals. They are not refused: most changes move no number"),
}  # fmt: skip


@dataclass(frozen=True)
class Fuzzed:
    """What was fed to a target of `tests/fuzz` by coverage, and what came of it."""

    what: str
    inputs: int
    found: str = "nothing"


FUZZED = {
    "study": Fuzzed("study files, through to their arms", 110_000, "a level of a factor, or a base, without settings was a traceback; now one line"),
    "overrides": Fuzzed("`key=value` words of the command line", 110_000, "line breaks of a key stood in the error's line; now escaped"),
    "notation": Fuzzed("network notation, through to the layers' shapes", 200_000, "line breaks stood in the error's line; now escaped"),
    "archive": Fuzzed("zip archives, every member read", 150_000, "an entry without a name was a traceback; now refused"),
    "folder": Fuzzed("names and contents of an image folder", 110_000, "deep folders took a time that grew with the square of their depth, 0.5 s a file (found while the target was written); now in proportion to it"),
    "image": Fuzzed("image files", 150_000),
    "result": Fuzzed("result.json and its details", 200_000),
    "checkpoint": Fuzzed("a checkpoint's record and its safetensors", 110_000),
}  # fmt: skip
