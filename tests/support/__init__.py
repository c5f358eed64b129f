"""What tests share: small models, trainings, repositories, servers and the table of errors. No test is here."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
