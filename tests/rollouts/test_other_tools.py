"""Other tools read the folder as it is."""

import pyarrow.parquet as pq
import pytest
from small_store import PROMPTS, FakeSampler, K

from infalign.rollouts import RolloutStore


def test_the_wide_table_has_a_column_per_reward(scored):
    table = scored.read()
    assert table.num_rows == len(PROMPTS) * K
    assert table.column_names[-2:] == ["length", "other/length"]
    assert table["other/length"].null_count == (len(PROMPTS) - 3) * K
    assert table["length"].to_pylist() == [len(text) for text in table["text"].to_pylist()]
    keys = list(zip(table["prompt_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
    assert keys == sorted(keys)


def test_the_export_is_the_wide_table(scored, tmp_path):
    assert pq.read_table(scored.export(tmp_path / "wide.parquet")).equals(scored.read())


def test_an_empty_store_reads_as_an_empty_table(tmp_path):
    store = RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7)
    assert store.read().num_rows == 0
    assert "log_prob" in store.read().column_names


def expected_rows(store):
    return {
        (prompt.id, i, response.text, response.log_prob)
        for prompt, row in zip(PROMPTS, store.responses(PROMPTS), strict=True)
        for i, response in enumerate(row)
    }


COLUMNS = ["prompt_id", "sample", "text", "log_prob"]


def test_pandas_reads_the_folder(scored):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(scored.path / "rollouts")
    assert set(frame[COLUMNS].itertuples(index=False, name=None)) == expected_rows(scored)
    assert len(pandas.read_parquet(scored.path / "rewards")) == (len(PROMPTS) + 3) * K


def test_polars_reads_the_folder(scored):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(scored.path / "rollouts")
    assert set(frame.select(COLUMNS).iter_rows()) == expected_rows(scored)
    assert len(polars.read_parquet(scored.path / "rewards")) == (len(PROMPTS) + 3) * K


def test_duckdb_reads_the_folder_and_joins_rewards(scored):
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(
        f"select prompt_id, sample, text, log_prob from '{scored.path}/rollouts/*.parquet'"
    ).fetchall()
    assert set(rows) == expected_rows(scored)
    joined = duckdb.sql(
        f"select count(*) from '{scored.path}/rollouts/*.parquet' join "
        f"'{scored.path}/rewards/*.parquet' using (prompt_id, sample) "
        "where reward_name = 'length' and reward = length(text)"
    ).fetchall()
    assert joined == [(len(PROMPTS) * K,)]


def test_datasets_reads_the_folder(scored, tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.load_dataset(
        "parquet",
        data_dir=str(scored.path / "rollouts"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert {tuple(row[name] for name in COLUMNS) for row in data} == expected_rows(scored)
