"""Many training runs as one model: lanes with their own data order, rates, penalties, schedules and seeds.

Read `flat` (state as rows), `update` (one optimizer update of all lanes), `stack` (an epoch, loading and dropping lanes).
"""
