setTimeout(() => { console.log(); setTimeout(() => {}, 60000) }, 1000)
