"""The search for hyper-parameters, on real storages of Optuna: a file for each study, and SQLite."""

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from ml.training.protocol import Stopped, TrainingImpossible, Watch
from ml.training.search import Best, SearchRules, StudyUnavailable, Value, forget, search

SPACE = {"depth": (1, 10), "eta": {"low": 0.01, "high": 1.0, "log": True}, "booster": {"choices": ["tree", "line"]}}


def loss_of(parameters: Mapping[str, Value], watch: Watch) -> float:
    """The lowest is at depth 7, eta 0.1 and trees."""
    depth, eta = parameters["depth"], parameters["eta"]
    assert isinstance(depth, int)
    assert isinstance(eta, float)
    return abs(depth - 7) + abs(eta - 0.1) + (parameters["booster"] == "line")


def noted(parameters: Mapping[str, Value], watch: Watch, file: Path) -> float:
    """The same, with a line in the file for each trial that began."""
    with file.open("a") as lines:
        lines.write(f"{os.getpid()} {sorted(parameters.items())}\n")
    return loss_of(parameters, watch)


def slowly(parameters: Mapping[str, Value], watch: Watch, file: Path) -> float:
    """The same, in 50 ms."""
    loss = noted(parameters, watch, file)
    time.sleep(0.05)
    return loss


def for_ever(parameters: Mapping[str, Value], watch: Watch, file: Path) -> float:
    noted(parameters, watch, file)
    time.sleep(60)
    return 0.0


def dying(parameters: Mapping[str, Value], watch: Watch) -> float:
    os._exit(9)


def full_disk(parameters: Mapping[str, Value], watch: Watch) -> float:
    raise OSError(28, "No space left on device")


def too_deep(parameters: Mapping[str, Value], watch: Watch) -> float:
    raise TrainingImpossible(f"a tree of depth {parameters['depth']} is too deep")


@dataclass
class Fit:
    """Rounds of a fit whose loss falls to `loss_of`, except that every second one is much worse; counts the rounds."""

    rounds: list[int] = field(default_factory=list)

    def __call__(self, parameters: Mapping[str, Value], watch: Watch) -> float:
        offset = 100.0 if len(self.rounds) % 2 else 0.0
        self.rounds.append(0)
        for done in range(1, 101):
            self.rounds[-1] = done
            watch.progress(done, 100, offset + 1 / done)
        return offset


def searched(folder: Path, rules: SearchRules, name: str = "run", seed: int = 1) -> Best:
    return search(SPACE, rules, loss_of, storage=str(folder), study_name=name, seed=seed)


def in_a_database(url: str, name: str) -> None:
    """Exits with 0 if all trials could be made."""
    rules = SearchRules(method="random", trials=8)
    search(SPACE, rules, loss_of, storage=url, study_name=name, seed=1)


def in_the_background(folder: Path, rules: SearchRules, file: Path) -> None:
    search(SPACE, rules, partial(slowly, file=file), storage=str(folder), study_name="run", seed=1)


def waiting_in_the_background(folder: Path, rules: SearchRules, file: Path) -> None:
    search(SPACE, rules, partial(for_ever, file=file), storage=str(folder), study_name="run", seed=1)


def lines_of(file: Path, at_least: int) -> list[str]:
    """The lines of the file, once there are so many."""
    give_up = time.monotonic() + 30
    while not file.exists() or len(file.read_text().splitlines()) < at_least:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return file.read_text().splitlines()


def is_gone(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_tpe_comes_nearer_to_the_best_than_its_first_trials(tmp_path: Path) -> None:
    best = searched(tmp_path, SearchRules(trials=40))
    assert [trial.index for trial in best.trials] == list(range(40))
    assert best.loss == min(trial.loss or 9.0 for trial in best.trials) < 0.5
    assert best.parameters["depth"] == 7
    assert best.loss < min(trial.loss or 9.0 for trial in best.trials[:10])


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_the_same_seed_tries_the_same_and_another_one_does_not(tmp_path: Path, method: str) -> None:
    rules = SearchRules(method=method, trials=12)  # type: ignore[arg-type]
    first, again = searched(tmp_path / "a", rules), searched(tmp_path / "b", rules)
    assert first == again
    assert searched(tmp_path / "c", rules, seed=2).trials[0].parameters != first.trials[0].parameters


def test_a_grid_tries_each_point_once_and_no_more(tmp_path: Path) -> None:
    space = {"depth": (1, 3), "eta": {"low": 0.1, "high": 0.3, "step": 0.1}, "booster": {"choices": ["tree", "line"]}}
    told: list[tuple[int, int]] = []
    best = search(
        space,
        SearchRules(method="grid", trials=100),
        loss_of,
        storage=str(tmp_path),
        study_name="run",
        on_trial=lambda done, of, loss: told.append((done, of)),
    )
    tried = {tuple(trial.parameters.values()) for trial in best.trials}
    assert tried == {(b, d, e) for b in ("tree", "line") for d in (1, 2, 3) for e in (0.1, 0.2, 0.3)}
    assert len(best.trials) == 18
    assert told == [(done, 18) for done in range(1, 19)]


def test_another_meaning_is_another_study_and_all_of_a_name_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "begun"
    for meaning in ("a", "b", "a"):
        search(
            SPACE,
            SearchRules(trials=2),
            partial(noted, file=file),
            storage=str(tmp_path),
            study_name="run",
            meaning=meaning,
        )
    assert len(lines_of(file, 4)) == 4
    assert len(list(tmp_path.glob("*.journal"))) == 2
    forget(str(tmp_path), "run")
    assert not list(tmp_path.glob("*.journal"))


def test_a_huge_grid_is_tried_in_part(tmp_path: Path) -> None:
    space = dict.fromkeys(("a", "b", "c"), (1, 1_000_000))
    rules = SearchRules(method="grid", trials=5)
    best = search(space, rules, lambda parameters, watch: 1.0, storage=str(tmp_path), study_name="run")
    assert len({tuple(trial.parameters.values()) for trial in best.trials}) == 5


def test_a_study_that_ended_is_not_tried_again_and_more_trials_go_on_with_it(tmp_path: Path) -> None:
    first = searched(tmp_path, SearchRules(trials=6))
    file = tmp_path / "begun"
    evaluate = partial(noted, file=file)
    assert search(SPACE, SearchRules(trials=6), evaluate, storage=str(tmp_path), study_name="run", seed=1) == first
    assert not file.exists()
    more = search(SPACE, SearchRules(trials=8), evaluate, storage=str(tmp_path), study_name="run", seed=1)
    assert len(lines_of(file, 2)) == 2
    assert more == searched(tmp_path / "at once", SearchRules(trials=8))


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_a_search_that_is_killed_goes_on_where_it_was_and_comes_to_the_same(tmp_path: Path, method: str) -> None:
    rules = SearchRules(method=method, trials=15)  # type: ignore[arg-type]
    file = tmp_path / "begun"
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=in_the_background, args=(tmp_path / "studies", rules, file))
    process.start()
    began = len(lines_of(file, 4))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    evaluate = partial(noted, file=file)
    best = search(SPACE, rules, evaluate, storage=str(tmp_path / "studies"), study_name="run", seed=1)
    assert best == searched(tmp_path / "never killed", rules)
    assert 15 <= len(file.read_text().splitlines()) <= 16
    assert began < 15


def test_a_line_that_a_crash_cut_off_is_forgotten(tmp_path: Path) -> None:
    first = searched(tmp_path, SearchRules(trials=3))
    [file] = tmp_path.glob("*.journal")
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code": 4, "wor')
    assert searched(tmp_path, SearchRules(trials=3)) == first
    file.write_bytes(whole[:-20])
    assert searched(tmp_path, SearchRules(trials=3)) == first


def test_several_processes_try_exactly_so_many_trials_at_the_same_time(tmp_path: Path) -> None:
    file = tmp_path / "begun"
    rules = SearchRules(method="random", trials=9, parallel=2)
    best = search(SPACE, rules, partial(slowly, file=file), storage=str(tmp_path), study_name="run", seed=1)
    assert best == searched(tmp_path / "one", SearchRules(method="random", trials=9))
    lines = file.read_text().splitlines()
    assert len(lines) == 9
    assert len({line.split()[0] for line in lines} - {str(os.getpid())}) == 2


def test_processes_of_a_search_end_with_it_when_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "begun"
    spawn = multiprocessing.get_context("spawn")
    rules = SearchRules(trials=4, parallel=2)
    process = spawn.Process(target=waiting_in_the_background, args=(tmp_path, rules, file))
    process.start()
    trying = [int(line.split()[0]) for line in lines_of(file, 2)]
    assert process.pid not in trying
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    give_up = time.monotonic() + 10
    while not all(map(is_gone, trying)):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    best = search(SPACE, SearchRules(trials=4), loss_of, storage=str(tmp_path), study_name="run", seed=1)
    assert [trial.index for trial in best.trials] == [0, 1, 2, 3]


def test_a_process_that_dies_ends_the_search_with_a_sentence(tmp_path: Path) -> None:
    rules = SearchRules(trials=4, parallel=2)
    with pytest.raises(ChildProcessError, match="died in the middle of a trial"):
        search(SPACE, rules, dying, storage=str(tmp_path), study_name="run")


@pytest.mark.parametrize("parallel", [1, 2])
def test_an_error_that_is_not_of_the_parameters_ends_the_search(tmp_path: Path, parallel: int) -> None:
    with pytest.raises(OSError, match="No space left"):
        search(SPACE, SearchRules(trials=4, parallel=parallel), full_disk, storage=str(tmp_path), study_name="run")


def test_what_is_behind_the_median_is_given_up_early(tmp_path: Path) -> None:
    fit = Fit()
    best = search(SPACE, SearchRules(method="random", trials=16), fit, storage=str(tmp_path), study_name="run")
    outcomes = [trial.outcome for trial in best.trials]
    assert outcomes[:5] == ["complete"] * 5
    assert outcomes[7::2] == ["pruned"] * 5
    assert fit.rounds[7::2] == [10] * 5
    assert best.loss == 0.0


def test_without_pruning_everything_is_tried_to_its_end(tmp_path: Path) -> None:
    fit = Fit()
    search(SPACE, SearchRules(trials=12, prune=False), fit, storage=str(tmp_path), study_name="run")
    assert fit.rounds == [100] * 12


def test_what_a_process_reports_is_pruned_as_well(tmp_path: Path) -> None:
    rules = SearchRules(method="random", trials=24, parallel=2)
    best = search(SPACE, rules, Fit(), storage=str(tmp_path), study_name="run")
    assert {"complete", "pruned"} == {trial.outcome for trial in best.trials}


def test_when_the_time_is_up_no_trial_begins_but_one_is_always_tried(tmp_path: Path) -> None:
    evaluate = partial(slowly, file=tmp_path / "begun")
    rules = SearchRules(trials=50, seconds=0.18)
    assert 1 <= len(search(SPACE, rules, evaluate, storage=str(tmp_path), study_name="a").trials) <= 4
    rules = SearchRules(trials=50, seconds=1e-9)
    assert len(search(SPACE, rules, evaluate, storage=str(tmp_path), study_name="b").trials) == 1


def test_parameters_that_cannot_be_used_are_a_trial_that_failed(tmp_path: Path) -> None:
    def evaluate(parameters: Mapping[str, Value], watch: Watch) -> float:
        return (
            too_deep(parameters, watch)
            if parameters["depth"] == 10
            else float("nan")
            if parameters["depth"] == 9
            else 1.0
        )

    space = {"depth": (8, 10)}
    rules = SearchRules(method="grid", trials=9)
    best = search(space, rules, evaluate, storage=str(tmp_path), study_name="run")
    assert (best.parameters, best.loss) == ({"depth": 8}, 1.0)
    failed = {trial.parameters["depth"]: (trial.outcome, trial.message) for trial in best.trials}
    assert failed == {
        8: ("complete", ""),
        9: ("failed", "the loss is nan"),
        10: ("failed", "a tree of depth 10 is too deep"),
    }
    assert search(space, rules, evaluate, storage=str(tmp_path), study_name="run") == best


def test_when_every_trial_fails_the_last_one_says_why(tmp_path: Path) -> None:
    with pytest.raises(TrainingImpossible, match=r"none of 3 trials .* a tree of depth \d+ is too deep"):
        search(SPACE, SearchRules(trials=3), too_deep, storage=str(tmp_path), study_name="run")


def test_whoever_is_told_of_trials_can_end_the_search(tmp_path: Path) -> None:
    def told(done: int, of: int, loss: float | None) -> None:
        if done == 2:
            raise Stopped("enough")

    with pytest.raises(Stopped, match="enough"):
        search(SPACE, SearchRules(trials=9), loss_of, storage=str(tmp_path), study_name="run", on_trial=told)
    assert len(searched(tmp_path, SearchRules(trials=2), seed=0).trials) == 2


def test_studies_of_a_database_are_kept_by_name_and_shared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    file = tmp_path / "begun"
    first = search(SPACE, SearchRules(trials=3), partial(noted, file=file), storage=url, study_name="a", seed=1)
    search(SPACE, SearchRules(trials=3), partial(noted, file=file), storage=url, study_name="b", seed=1)
    assert search(SPACE, SearchRules(trials=3), loss_of, storage=url, study_name="a", seed=1) == first
    assert len(file.read_text().splitlines()) == 6
    assert first == searched(tmp_path, SearchRules(trials=3))


def test_several_processes_search_in_one_database_at_the_same_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    in_a_database(url, "first")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=in_a_database, args=(url, name)) for name in ("second", "third")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_others_may_look_at_a_study_while_it_is_searched(tmp_path: Path) -> None:
    from optuna import load_study
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    seen: list[int] = []

    def look(done: int, of: int, loss: float | None) -> None:
        [file] = tmp_path.glob("*.journal")
        study = load_study(study_name=file.stem, storage=JournalStorage(JournalFileBackend(str(file))))
        assert study.best_value == loss
        seen.append(len(study.trials))

    search(SPACE, SearchRules(trials=3), loss_of, storage=str(tmp_path), study_name="run", on_trial=look)
    assert seen == [1, 2, 3]


def test_another_space_is_another_study(tmp_path: Path) -> None:
    searched(tmp_path, SearchRules(trials=2))
    narrow = search(
        {"depth": (7, 8), "eta": (0.1, 0.2), "booster": {"choices": ["tree"]}},
        SearchRules(trials=2),
        loss_of,
        storage=str(tmp_path),
        study_name="run",
        seed=1,
    )
    assert {trial.parameters["booster"] for trial in narrow.trials} == {"tree"}


def test_a_database_that_cannot_be_reached_is_said_without_its_password(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}?password=canary-91"
    with pytest.raises(StudyUnavailable, match="check that it can be reached") as caught:
        search(SPACE, SearchRules(), loss_of, storage=url, study_name="run")
    assert "canary" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingImpossible, match=r"needs a package that is not installed: .*psycopg"):
        search(SPACE, SearchRules(), loss_of, storage="postgresql://u:p@localhost/x", study_name="run")


def test_a_folder_that_is_a_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("in the way")
    with pytest.raises(OSError, match="studies"):
        searched(tmp_path / "studies", SearchRules())
